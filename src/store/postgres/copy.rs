//! Rows for `COPY … WITH (FORMAT binary)`.
//!
//! Format: <https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS>

use sqlx::PgConnection;
use sqlx::postgres::PgCopyIn;

/// The signature, then a flags word and the length of a header extension, both zero.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// A field count of -1 ends the rows.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
/// A field length of -1 is a null.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// PostgreSQL counts microseconds from 2000-01-01, the ledger from 1970-01-01.
const EPOCH_SHIFT_MICROS: i64 = 946_684_800_000_000;

/// Bytes gathered before they are sent: PostgreSQL stores one part while the next is made.
const PART: usize = 64 * 1024;

/// A `COPY` under way; each row is [`CopyRows::row`] and then its fields in the columns' order.
pub(super) struct CopyRows<'c> {
    copy: PgCopyIn<&'c mut PgConnection>,
    buffer: Vec<u8>,
    columns: i16,
    rows: u64,
}

impl<'c> CopyRows<'c> {
    /// Begins the statement, for rows of so many columns.
    pub(super) async fn begin(
        connection: &'c mut PgConnection,
        statement: &'static str,
        columns: i16,
    ) -> Result<Self, sqlx::Error> {
        let copy = connection.copy_in_raw(statement).await?;
        let mut buffer = Vec::with_capacity(PART + PART / 4);
        buffer.extend_from_slice(HEADER);
        Ok(Self { copy, buffer, columns, rows: 0 })
    }

    /// Starts a row.
    pub(super) async fn row(&mut self) -> Result<&mut Self, sqlx::Error> {
        if self.buffer.len() >= PART {
            self.copy.send(self.buffer.as_slice()).await?;
            self.buffer.clear();
        }
        self.rows += 1;
        self.buffer.extend_from_slice(&self.columns.to_be_bytes());
        Ok(self)
    }

    pub(super) fn bytes(&mut self, field: &[u8]) -> &mut Self {
        // Holds because every field is a bounded id, a digest, or the detail of one command.
        let length = i32::try_from(field.len()).expect("a field is far below 2 GiB");
        self.buffer.extend_from_slice(&length.to_be_bytes());
        self.buffer.extend_from_slice(field);
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
        self.buffer.extend_from_slice(&NULL);
        self
    }

    /// Ends the statement; the server's count must be the number of rows made.
    pub(super) async fn finish(mut self) -> Result<(), sqlx::Error> {
        self.buffer.extend_from_slice(&TRAILER);
        self.copy.send(self.buffer.as_slice()).await?;
        let written = self.copy.finish().await?;
        if written == self.rows {
            Ok(())
        } else {
            Err(sqlx::Error::Protocol(format!("COPY wrote {written} rows of {}", self.rows)))
        }
    }
}
