//! Markdown tables.

use std::fmt;

/// A table under a heading.
pub(crate) struct Table {
    heading: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { heading: heading.into(), rows: vec![columns] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {}\n", self.heading)?;
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let widths = (0..self.rows[0].len())
            .map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect::<Vec<_>>();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                // Names to the left, figures to the right.
                if column == 0 { write!(f, "| {cell:<width$} ")? } else { write!(f, "| {cell:>width$} ")? }
            }
            writeln!(f, "|")?;
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let dashes = "-".repeat(width + 1);
                    if column == 0 { write!(f, "|{dashes}-")? } else { write!(f, "|{dashes}:")? }
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// A whole number with its thousands apart.
pub(crate) fn grouped(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new("Speed", &["who", "how far"]);
        table.row(vec!["a snail".into(), "1".into()]);
        let lines =
            ["## Speed", "", "| who     | how far |", "|---------|--------:|", "| a snail |       1 |"];
        assert_eq!(table.to_string(), lines.map(|line| format!("{line}\n")).concat());
    }

    #[test]
    fn thousands() {
        assert_eq!(["0", "999", "1,000", "2,345,678"], [0.4, 999.4, 999.6, 2_345_678.0].map(grouped));
    }
}
