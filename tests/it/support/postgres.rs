//! One new PostgreSQL database for each test.

use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, postgres::PgConnectOptions};

use super::{block_on_own_thread, server_env, unique_name, url_of_database};

/// A database of its own, dropped with the value, whoever is still connected. The user is a superuser; a test that
/// needs a lesser one creates a role named after [`Database::name`] and calls [`Database::url_as`].
pub struct Database {
    pub name: String,
    pub url: String,
    server_url: String,
}

impl Database {
    pub async fn create() -> Self {
        let server_url = server_env("ROWGATE_TEST_POSTGRES_URL");
        let name = unique_name();
        let mut server = connect(&server_url).await;
        run(
            &mut server,
            &format!("create database {name} template template0"),
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
    pub async fn connect(&self) -> PgConnection {
        connect(&self.url).await
    }

    pub async fn pool(&self, connections_max: u32) -> PgPool {
        sqlx::postgres::PgPoolOptions::new()
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

    /// The database's URL for another user (every login on loopback is trusted).
    pub fn url_as(&self, user: &str) -> String {
        let mut url = url::Url::parse(&self.url).expect("made from a URL");
        url.set_username(user).expect("a server's URL takes a user");
        url.to_string()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server_url, name) = (self.server_url.clone(), self.name.clone());
        block_on_own_thread(async move {
            let mut server = connect(&server_url).await;
            run(
                &mut server,
                &format!("drop database if exists {name} with (force)"),
            )
            .await;
        });
    }
}

async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().expect("a PostgreSQL URL");
    options
        .connect()
        .await
        .unwrap_or_else(|error| panic!("the test server does not answer at {url}: {error}"))
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{error}, in: {sql}"));
}
