//! What callgrind writes: how many instructions were executed, by which functions and at which addresses.

use std::collections::BTreeMap;

use anyhow::{bail, ensure, Context, Result};

/// How the names of the provider's functions begin.
const PROVIDER: &str = "null_provider::";

/// The options with which callgrind writes what [`parse`] reads: one part for each time that one of `functions` has
/// returned, of what was executed within it. All their names begin with `cost_`.
pub(crate) fn options<'a>(functions: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    const FORMAT: [&str; 6] = [
        "--combine-dumps=yes",
        "--dump-instr=yes",
        "--compress-strings=no",
        "--compress-pos=no",
        "--collect-atstart=no",
        // A pattern, because callgrind does not take two options for one and the same name.
        "--toggle-collect=cost_*",
    ];
    let dumps = functions.into_iter().map(|function| format!("--dump-after={function}"));
    FORMAT.map(String::from).into_iter().chain(dumps).collect()
}

/// What was executed within a function, once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) function: String,
    /// Instructions in all.
    pub(crate) total: u64,
    /// Instructions within calls of the provider.
    pub(crate) provider: u64,
    /// What the provider did not execute.
    pub(crate) own: BTreeMap<Place, u64>,
}

/// Where an instruction is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The program or library.
    pub(crate) object: String,
    /// Its address there.
    pub(crate) address: u64,
    pub(crate) function: String,
}

/// The parts, in the order in which the functions returned.
pub(crate) fn parse(text: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for (number, section) in text.split("\npart: ").skip(1).enumerate() {
        let trigger = section.lines().find_map(|line| line.strip_prefix("desc: Trigger: "));
        let trigger = trigger.context("a part of callgrind's output has no trigger")?;
        // The last one, at the end of the program, is of nothing.
        if let Some(function) = trigger.strip_prefix("--dump-after=") {
            let part = part(section, function);
            parts.push(part.with_context(|| {
                format!("part {} of callgrind's output, of {function}", number + 1)
            })?);
        }
    }
    Ok(parts)
}

fn part(section: &str, function: &str) -> Result<Part> {
    let mut part = Part { function: function.into(), ..Part::default() };
    let (mut object, mut caller, mut called) = ("", "", None);
    let (mut summary, mut executed) = (None, 0);
    for line in section.lines() {
        if let Some(name) = line.strip_prefix("ob=") {
            object = name;
        } else if let Some(name) = line.strip_prefix("fn=") {
            caller = name;
        } else if let Some(name) = line.strip_prefix("cfn=") {
            called = Some(name);
        } else if let Some(count) = line.strip_prefix("summary: ") {
            summary = Some(count.trim().parse().context("the summary is no number")?);
        } else if line.starts_with("0x") {
            let (address, count) = cost(line)?;
            // A line after one that names a function that is called has what was executed in there.
            if let Some(called) = called.take() {
                if is_provider(called) && !is_provider(caller) {
                    part.provider += count;
                }
                continue;
            }
            executed += count;
            if !is_provider(caller) {
                let place = Place { object: object.into(), address, function: caller.into() };
                *part.own.entry(place).or_default() += count;
            }
        }
    }
    part.total = summary.context("there is no summary")?;
    ensure!(
        executed == part.total,
        "the lines add up to {executed}, and the summary is {}",
        part.total
    );
    ensure!(part.provider <= part.total, "the provider executed more than there is");
    ensure!(part.own.keys().any(|place| place.function == function), "the function is not in it");
    Ok(part)
}

fn is_provider(function: &str) -> bool {
    function.starts_with(PROVIDER)
}

/// The address and the number of a line `0xADDRESS LINE NUMBER`.
fn cost(line: &str) -> Result<(u64, u64)> {
    let words: Vec<&str> = line.split(' ').collect();
    let [address, _, count] = words[..] else { bail!("a line is not understood: {line}") };
    let digits = address.strip_prefix("0x").unwrap_or(address);
    let address = u64::from_str_radix(digits, 16);
    match (address, count.parse()) {
        (Ok(address), Ok(count)) => Ok((address, count)),
        _ => bail!("a line is not understood: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What callgrind 3.19 writes, shortened.
    const OUTPUT: &str = "# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 1
cmd:  /t/benches count
part: 1

desc: Timerange: Basic block 0 - 169502
desc: Trigger: --dump-after=cost_c_send

positions: instr line
events: Ir
summary: 45


ob=/lib/libc.so.6
fl=???
fn=(below main)
cob=/t/benches
cfi=???
cfn=main
calls=0 0x3eb50 0 
0x27248 58 45

ob=/t/benches
fl=/p/src/main.rs
fn=ibverbs_benches::main
cfi=/p/src/in_c.c
cfn=cost_c_send
calls=1 0x3a660 51 
0x3d04f 0 45

fl=/p/src/in_c.c
fn=cost_c_send
0x3a660 51 1
fi=/p/verbs.h
0x3a6a0 151 10
0x3a6a3 151 10
cfi=/p/null-provider/src/minimal.rs
cfn=null_provider::minimal::wr_start
calls=10 0x62c70 233 
0x3a6a3 151 20
fe=/p/src/in_c.c
cob=/lib/libc.so.6
cfn=memcpy
calls=1 0x1000 7 
0x3a6b0 52 4

fl=/p/null-provider/src/minimal.rs
fn=null_provider::minimal::wr_start
0x62c70 233 10
cfn=null_provider::minimal::begin
calls=10 0x62d00 240 
0x62c74 234 10

fn=null_provider::minimal::begin
0x62d00 240 10

ob=/lib/libc.so.6
fl=???
fn=memcpy
0x1000 0 4

part: 2

desc: Trigger: Program termination

positions: instr line
events: Ir
summary: 0

totals: 45
";

    fn place(object: &str, address: u64, function: &str) -> Place {
        Place { object: object.into(), address, function: function.into() }
    }

    #[test]
    fn what_the_provider_executes_is_told_apart() {
        let parts = parse(OUTPUT).unwrap();
        let [part] = &parts[..] else { panic!("{parts:?}") };
        assert_eq!((part.function.as_str(), part.total, part.provider), ("cost_c_send", 45, 20));
        let own = [
            (place("/lib/libc.so.6", 0x1000, "memcpy"), 4),
            (place("/t/benches", 0x3a660, "cost_c_send"), 1),
            (place("/t/benches", 0x3a6a0, "cost_c_send"), 10),
            (place("/t/benches", 0x3a6a3, "cost_c_send"), 10),
        ];
        assert_eq!(part.own, BTreeMap::from(own));
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let error = |before: &str, after: &str| {
            assert!(OUTPUT.contains(before));
            format!("{:#}", parse(&OUTPUT.replace(before, after)).unwrap_err())
        };
        assert!(error("summary: 45", "summary: 46").contains("add up to 45"));
        assert!(error("summary: 45", "summary: x").contains("no number"));
        assert!(error("0x1000 0 4", "+3 0 4").contains("add up to 41"));
        assert!(error("0x1000 0 4", "0x1000 4").contains("not understood"));
        assert!(error("0x3a6a3 151 20", "0x3a6a3 151 50").contains("more than there is"));
        assert!(error("--dump-after=cost_c_send", "--dump-after=other").contains("not in it"));
        assert!(error("desc: Trigger: P", "P").contains("no trigger"));
    }

    #[test]
    fn each_function_is_named_to_callgrind() {
        let options = options(["cost_a", "cost_b"]);
        for option in ["--toggle-collect=cost_*", "--dump-after=cost_a", "--dump-after=cost_b"] {
            assert!(options.iter().any(|given| given == option), "{option}");
        }
    }
}
