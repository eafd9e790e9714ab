//! Rows for `COPY … WITH (FORMAT binary)`.
//!
//! Format: <https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS>

use sqlx::PgConnection;

/// The signature, then a flags word and the length of a header extension, both zero.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// A field count of -1 ends the rows.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
/// A field length of -1 is a null.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// PostgreSQL counts microseconds from 2000-01-01, the ledger from 1970-01-01.
const EPOCH_SHIFT_MICROS: i64 = 946_684_800_000_000;

/// Bytes sent at once, when they are at least so many: what was sent is let go while PostgreSQL stores the rest.
const PART: usize = 64 * 1024;

/// The rows of a `COPY`, made before it begins, so that they can be made while PostgreSQL does something else. Each is
/// [`CopyRows::row`] and then its fields in the columns' order.
pub(super) struct CopyRows {
    columns: i16,
    rows: u64,
    /// Parts that are full.
    full: Vec<Vec<u8>>,
    /// The part that the next row goes to.
    part: Vec<u8>,
}

impl CopyRows {
    /// None yet, of so many columns.
    pub(super) fn new(columns: i16) -> Self {
        Self { columns, rows: 0, full: Vec::new(), part: Vec::new() }
    }

    /// Starts a row.
    pub(super) fn row(&mut self) -> &mut Self {
        if self.rows == 0 {
            self.part = new_part();
            self.part.extend_from_slice(HEADER);
        } else if self.part.len() >= PART {
            self.full.push(std::mem::replace(&mut self.part, new_part()));
        }
        self.rows += 1;
        self.part.extend_from_slice(&self.columns.to_be_bytes());
        self
    }

    pub(super) fn bytes(&mut self, field: &[u8]) -> &mut Self {
        // Holds because every field is a bounded id, a digest, or the detail of one command.
        let length = i32::try_from(field.len()).expect("a field is far below 2 GiB");
        self.part.extend_from_slice(&length.to_be_bytes());
        self.part.extend_from_slice(field);
        self
    }

    pub(super) fn text(&mut self, field: &str) -> &mut Self {
        self.bytes(field.as_bytes())
    }

    pub(super) fn bigint(&mut self, field: i64) -> &mut Self {
        self.bytes(&field.to_be_bytes())
    }

    pub(super) fn integer(&mut self, field: i32) -> &mut Self {
        self.bytes(&field.to_be_bytes())
    }

    pub(super) fn smallint(&mut self, field: i16) -> &mut Self {
        self.bytes(&field.to_be_bytes())
    }

    pub(super) fn boolean(&mut self, field: bool) -> &mut Self {
        self.bytes(&[u8::from(field)])
    }

    /// A `timestamptz` from microseconds since 1970.
    pub(super) fn timestamp(&mut self, micros: i64) -> &mut Self {
        self.bigint(micros - EPOCH_SHIFT_MICROS)
    }

    pub(super) fn null(&mut self) -> &mut Self {
        self.part.extend_from_slice(&NULL);
        self
    }

    /// Runs the statement, where there is a row; the server's count must be the number of rows made.
    pub(super) async fn copy(
        mut self,
        connection: &mut PgConnection,
        statement: &'static str,
    ) -> Result<(), sqlx::Error> {
        if self.rows == 0 {
            return Ok(());
        }
        self.part.extend_from_slice(&TRAILER);
        let mut copy = connection.copy_in_raw(statement).await?;
        for part in self.full.into_iter().chain([self.part]) {
            copy.send(part).await?;
        }
        let written = copy.finish().await?;
        if written == self.rows {
            Ok(())
        } else {
            Err(sqlx::Error::Protocol(format!("COPY wrote {written} rows of {}", self.rows)))
        }
    }
}

/// A part, with room for the row that makes it full.
fn new_part() -> Vec<u8> {
    Vec::with_capacity(PART + PART / 4)
}
