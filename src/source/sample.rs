//! Sample data for the demo: an orders table in a SQLite file, the same on every machine.

use std::path::Path;

use rusqlite::{Connection, params};

use super::Error;

const FIRST_NAMES: [&str; 16] = [
    "Olivia",
    "José",
    "Zoë",
    "Łukasz",
    "Åsa",
    "Иван",
    "Ольга",
    "Γιώργος",
    "王",
    "李",
    "さくら",
    "민준",
    "فاطمة",
    "अनिल",
    "Nguyễn",
    "Emma",
];
const LAST_NAMES: [&str; 16] = [
    "Smith",
    "García",
    "Müller",
    "Nowak",
    "Öberg",
    "Петров",
    "Иванова",
    "Παπαδόπουλος",
    "伟",
    "秀英",
    "田中",
    "김",
    "الزهراء",
    "शर्मा",
    "Thị Minh",
    "O'Neil",
];
const STATUSES: [&str; 5] = ["new", "paid", "shipped", "returned", "cancelled"];
const NOTES: [&str; 5] = [
    "",
    "leave it at the \"back door\", please",
    "first line\nsecond line",
    "=SUM(A1:A9) is text here, not a formula",
    "请在工作日送货 🚚",
];

/// Makes `orders` with `rows` rows in a new file; what stood there is replaced.
///
/// # Errors
/// [`Error::Unavailable`] when the file can't be written.
pub fn create_orders(path: &Path, rows: u32) -> Result<(), Error> {
    let unavailable = |operator: String| Error::Unavailable { operator };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(unavailable(error.to_string()));
        }
        _ => {}
    }
    fill(path, rows).map_err(|error| unavailable(error.to_string()))
}

fn fill(path: &Path, rows: u32) -> rusqlite::Result<()> {
    let mut db = Connection::open(path)?;
    db.execute_batch(
        "pragma journal_mode = off;
         pragma synchronous = off;
         create table orders(
           id integer primary key,
           order_no text not null,
           customer text not null,
           email text not null,
           status text not null,
           amount decimal(12, 2) not null,
           quantity integer not null,
           is_paid boolean not null,
           created_at timestamp not null,
           note text)",
    )?;
    let transaction = db.transaction()?;
    {
        let mut insert = transaction
            .prepare("insert into orders values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?;
        for id in 1..=rows {
            // A fixed mixing of the id: neighbours look unlike, every run looks the same.
            let mixed = u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
            let pick = |shift: u32, count: usize| (mixed >> shift) as usize % count;
            let customer = format!(
                "{} {}",
                FIRST_NAMES[pick(0, FIRST_NAMES.len())],
                LAST_NAMES[pick(4, LAST_NAMES.len())]
            );
            let cents = mixed % 10_000_000;
            let seconds = (mixed % 157_680_000) as i64;
            let created = jiff::civil::date(2020, 1, 1).at(0, 0, 0, 0)
                + jiff::SignedDuration::from_secs(seconds);
            let note = NOTES[pick(20, NOTES.len())];
            insert.execute(params![
                id,
                format!("ORD-{id:08}"),
                customer,
                format!("user{}@example.com", mixed % 50_000),
                STATUSES[pick(8, STATUSES.len())],
                // The column's affinity makes a number of it; two digits behind the point survive that exactly.
                format!("{}.{:02}", cents / 100, cents % 100),
                (1 + mixed % 40) as i64,
                pick(12, 3) != 0,
                created.strftime("%Y-%m-%d %H:%M:%S").to_string(),
                (!note.is_empty()).then_some(note),
            ])?;
        }
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rows_every_time() {
        let folder = tempfile::tempdir().unwrap();
        let count = |name: &str| {
            let path = folder.path().join(name);
            create_orders(&path, 500).unwrap();
            Connection::open(path)
                .unwrap()
                .query_row(
                    "select count(*), count(distinct customer), sum(length(note)) from orders",
                    [],
                    |row| {
                        Ok((
                            row.get::<_, i64>(0)?,
                            row.get::<_, i64>(1)?,
                            row.get::<_, i64>(2)?,
                        ))
                    },
                )
                .unwrap()
        };
        let first = count("a.db");
        assert_eq!(first.0, 500);
        assert!(first.1 > 100, "{first:?}");
        assert_eq!(count("b.db"), first);
    }
}
