//! The table, and what is wrong with it.

use std::fmt;

use super::allowance::Allowances;

/// What one implementation of a case takes, each time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    /// Instructions outside the provider.
    pub(crate) own: u64,
    /// Instructions within the provider.
    pub(crate) provider: u64,
    /// The instructions outside the provider that lock memory, with the functions that they are in.
    pub(crate) locking: Vec<String>,
    /// How often the allocator was entered in all repetitions.
    pub(crate) allocator: u64,
    /// Nanoseconds, if they were measured.
    pub(crate) time: Option<f64>,
}

/// One case.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) c: Cost,
    pub(crate) ffi: Cost,
    pub(crate) ours: Cost,
}

/// All cases.
#[derive(Debug)]
pub(crate) struct Report(pub(crate) Vec<Row>);

impl Report {
    /// What must not be.
    pub(crate) fn faults(&self, allowances: &Allowances) -> Vec<String> {
        let mut faults: Vec<String> =
            self.0.iter().flat_map(|row| row.faults(allowances)).collect();
        for case in allowances.cases() {
            if !self.0.iter().any(|row| row.name == case) {
                faults.push(format!("{case}: there is an allowance, and no such case"));
            }
        }
        faults
    }
}

impl Row {
    fn faults(&self, allowances: &Allowances) -> Vec<String> {
        let mut faults = Vec::new();
        let (own, ffi) = (self.ours.own, self.ffi.own);
        match allowances.of(&self.name) {
            None => faults.push("there is no allowance".to_owned()),
            Some(allowance) if own > ffi + allowance => faults.push(format!(
                "{own} own instructions, where raw FFI needs {ffi} and {allowance} more are allowed"
            )),
            Some(_) => {}
        }
        if self.ours.allocator > 0 {
            faults.push(format!("entered the allocator {} times", self.ours.allocator));
        }
        faults.extend(self.ours.locking.iter().map(|place| format!("locks memory: {place}")));
        faults.iter().map(|fault| format!("{}: {fault}", self.name)).collect()
    }

    fn is_timed(&self) -> bool {
        self.ours.time.is_some()
    }
}

/// As a table of Markdown.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timed = self.0.iter().any(Row::is_timed);
        let mut head = vec!["case", "C", "FFI", "crate", "/ C", "provider"];
        if timed {
            head.extend(["C, ns", "FFI, ns", "crate, ns", "/ C"]);
        }
        writeln!(f, "| {} |", head.join(" | "))?;
        writeln!(f, "|---{}|", "|--:".repeat(head.len() - 1))?;
        for Row { title, c, ffi, ours, .. } in &self.0 {
            let ratio = ours.own as f64 / c.own as f64;
            write!(
                f,
                "| {title} | {} | {} | {} | {ratio:.2} | {} |",
                c.own, ffi.own, ours.own, ours.provider
            )?;
            if let (Some(c), Some(ffi), Some(ours)) = (c.time, ffi.time, ours.time) {
                write!(f, " {c:.1} | {ffi:.1} | {ours:.1} | {:.2} |", ours / c)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let cost = |own| Cost { own, provider: 76, ..Cost::default() };
        Row {
            name: "send".into(),
            title: "one send".into(),
            c: cost(40),
            ffi: cost(39),
            ours: cost(50),
        }
    }

    fn faults(row: Row) -> Vec<String> {
        Report(vec![row]).faults(&Allowances::parse("send 11 states").unwrap())
    }

    #[test]
    fn what_is_allowed_is_no_fault() {
        assert_eq!(faults(row()), [""; 0]);
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let mut slow = row();
        slow.ours.own += 1;
        assert_eq!(
            faults(slow),
            ["send: 51 own instructions, where raw FFI needs 39 and 11 more are allowed"]
        );
        let mut allocating = row();
        allocating.ours.allocator = 2;
        assert_eq!(faults(allocating), ["send: entered the allocator 2 times"]);
        let mut locking = row();
        locking.ours.locking = vec!["lock inc in f".into()];
        assert_eq!(faults(locking), ["send: locks memory: lock inc in f"]);
    }

    #[test]
    fn cases_and_allowances_belong_together() {
        let mut other = row();
        other.name = "other".into();
        let expected =
            ["other: there is no allowance", "send: there is an allowance, and no such case"];
        assert_eq!(faults(other), expected);
    }

    #[test]
    fn the_table_has_ratios() {
        let mut timed = row();
        (timed.c.time, timed.ffi.time, timed.ours.time) = (Some(10.0), Some(9.96), Some(10.5));
        let text = Report(vec![timed]).to_string();
        assert!(
            text.ends_with("| one send | 40 | 39 | 50 | 1.25 | 76 | 10.0 | 10.0 | 10.5 | 1.05 |\n"),
            "{text}"
        );
        let text = Report(vec![row()]).to_string();
        assert!(text.ends_with("| one send | 40 | 39 | 50 | 1.25 | 76 |\n"), "{text}");
    }
}
