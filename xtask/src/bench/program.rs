//! What the program of the package `benches` prints.

use anyhow::{Context, Result};

/// An implementation that was carried out to be counted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) case: String,
    pub(crate) kind: String,
    pub(crate) function: String,
    /// How often it was done.
    pub(crate) times: u64,
    /// How often the allocator was entered meanwhile.
    pub(crate) allocator: u64,
    pub(crate) title: String,
}

/// An implementation that was timed.
#[derive(Debug, PartialEq)]
pub(crate) struct Timed {
    pub(crate) case: String,
    pub(crate) kind: String,
    pub(crate) nanoseconds: f64,
}

impl Counted {
    pub(crate) fn parse(output: &str) -> Result<Vec<Self>> {
        lines(output, |words| {
            let [case, kind, function, times, allocator, title] = words else { return None };
            Some(Counted {
                case: (*case).into(),
                kind: (*kind).into(),
                function: (*function).into(),
                times: times.parse().ok().filter(|&times| times > 0)?,
                allocator: allocator.parse().ok()?,
                title: (*title).into(),
            })
        })
    }
}

impl Timed {
    pub(crate) fn parse(output: &str) -> Result<Vec<Self>> {
        lines(output, |words| {
            let [case, kind, nanoseconds] = words else { return None };
            let nanoseconds = nanoseconds.parse().ok()?;
            Some(Timed { case: (*case).into(), kind: (*kind).into(), nanoseconds })
        })
    }
}

/// Lines of words with tabs in between.
fn lines<T>(output: &str, parse: impl Fn(&[&str]) -> Option<T>) -> Result<Vec<T>> {
    let parse = |line: &str| {
        parse(&line.split('\t').collect::<Vec<_>>())
            .with_context(|| format!("the program printed what is not understood: {line}"))
    };
    output.lines().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let counted = Counted::parse("send\tc\tcost_c_send\t1000\t0\tone send\n").unwrap();
        let expected = Counted {
            case: "send".into(),
            kind: "c".into(),
            function: "cost_c_send".into(),
            times: 1000,
            allocator: 0,
            title: "one send".into(),
        };
        assert_eq!(counted, [expected]);
        let timed = Timed::parse("send\tcrate\t10.50\n").unwrap();
        let expected = Timed { case: "send".into(), kind: "crate".into(), nanoseconds: 10.5 };
        assert_eq!(timed, [expected]);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for wrong in ["send\tc", "send\tc\tf\t0\t0\ttitle", "send\tc\tf\t1\tx\ttitle", "panic"] {
            assert!(Counted::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Timed::parse("send\tc\tx").is_err());
    }
}
