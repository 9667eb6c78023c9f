//! Table columns and cells, ages and durations as kubectl prints them (TAB-1…TAB-5).

/// One column of a kind's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Heading, such as `Ready`.
    pub name: &'static str,
    /// `string` or `integer`.
    pub kind: &'static str,
    /// Such as `name`; mostly empty.
    pub format: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
}
