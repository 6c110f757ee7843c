//! Statements with many rows. SQLite runs on a thread of its own, and each statement switches there and back, which takes
//! longer than to write a row: other writers, such as a grant of a lock, wait meanwhile.

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Sqlite};

/// Rows of one statement. With the most columns of a table these are 704 of 32,766 variables.
pub(super) const ROWS: usize = 64;

/// A statement with a list of rows, all of the same number of columns.
pub(super) struct Many {
    pub before: &'static str,
    pub columns: usize,
    pub after: &'static str,
}

impl Many {
    /// The statement for so many rows, whose values are to be bound. That of most rows is kept prepared, others come once.
    pub fn of(&self, rows: usize) -> Query<'static, Sqlite, SqliteArguments> {
        let row = format!("({})", vec!["?"; self.columns].join(", "));
        let text = format!("{} {} {}", self.before, vec![row; rows].join(", "), self.after);
        // Of constants alone.
        sqlx::query(AssertSqlSafe(text)).persistent(rows == ROWS)
    }
}
