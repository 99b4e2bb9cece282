//! One new MariaDB database for each test.

use sqlx::{
    ConnectOptions, Connection, MySqlConnection, MySqlPool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions},
};

use super::{block_on_own_thread, server_env, unique_name, url_of_database};

/// A database of its own, dropped with the value. The user has all rights.
pub struct Database {
    pub name: String,
    pub url: String,
    server_url: String,
}

impl Database {
    pub async fn create() -> Self {
        let server_url = server_env("ROWGATE_TEST_MARIADB_URL");
        let name = unique_name();
        let mut server = connect(&server_url).await;
        run(
            &mut server,
            &format!("create database {name} character set utf8mb4"),
        )
        .await;
        server.close().await.expect("the connection closes");
        Self {
            url: url_of_database(&server_url, &name),
            name,
            server_url,
        }
    }

    /// A plain connection, for preparing tables and for looking.
    pub async fn connect(&self) -> MySqlConnection {
        connect(&self.url).await
    }

    pub async fn pool(&self, connections_max: u32) -> MySqlPool {
        MySqlPoolOptions::new()
            .max_connections(connections_max)
            .connect(&self.url)
            .await
            .expect("the test database answers")
    }

    /// Runs a script of statements without parameters.
    pub async fn execute(&self, sql: &str) {
        let mut connection = self.connect().await;
        run(&mut connection, sql).await;
        connection.close().await.expect("the connection closes");
    }

    /// The database's URL for another user; the test creates it, named after [`Database::name`].
    pub fn url_as(&self, user: &str, password: &str) -> String {
        let mut url = url::Url::parse(&self.url).expect("made from a URL");
        url.set_username(user).expect("a server's URL takes a user");
        url.set_password(Some(password))
            .expect("a server's URL takes a password");
        url.to_string()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server_url, name) = (self.server_url.clone(), self.name.clone());
        block_on_own_thread(async move {
            let mut server = connect(&server_url).await;
            // A reader that a test left open would hold the table's metadata lock for a day.
            run(
                &mut server,
                &format!("set lock_wait_timeout = 5; drop database if exists {name}"),
            )
            .await;
        });
    }
}

async fn connect(url: &str) -> MySqlConnection {
    let options: MySqlConnectOptions = url.parse().expect("a MariaDB URL");
    options
        .connect()
        .await
        .unwrap_or_else(|error| panic!("the test server does not answer at {url}: {error}"))
}

async fn run(connection: &mut MySqlConnection, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{error}, in: {sql}"));
}
