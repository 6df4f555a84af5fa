//! Which instructions of a program lock memory against other processors.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{host, process};

/// The instructions of a program or library that lock memory, by their address.
pub(crate) fn locking(object: &str) -> Result<BTreeMap<u64, String>> {
    let mut objdump = host::command("objdump");
    Ok(parse(&process::output(objdump.args(["--disassemble", "--no-show-raw-insn", object]))?))
}

/// Finds them in what objdump prints: `   37fd8:<tab>lock incq 0x9cb58(%rip)`.
fn parse(text: &str) -> BTreeMap<u64, String> {
    let instructions = text.lines().filter_map(|line| {
        let (address, instruction) = line.split_once(":\t")?;
        let address = u64::from_str_radix(address.trim(), 16).ok()?;
        locks(instruction).then(|| (address, instruction.trim().to_owned()))
    });
    instructions.collect()
}

fn locks(instruction: &str) -> bool {
    let mut words = instruction.split_whitespace();
    match words.next() {
        Some("lock") => true,
        // It needs no prefix to lock memory, which is an operand in parentheses.
        Some(name) if name.starts_with("xchg") => {
            words.next().is_some_and(|operands| operands.contains('('))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
/t/benches:     file format elf64-x86-64


Disassembly of section .text:

0000000000037e50 <cost_crate_send>:
   37e50:\tpush   %rbp
   37fd8:\tlock incq 0x9cb58(%rip)        # d4b38 <CALLS>
   37fe0:\tcall   *0x99b92(%rip)          # d1b78 <unlock>
   37fe6:\txchg   %ax,%ax
   37fe8:\txchg   %al,0x64(%r15)
   37ff0:\txchgl  %eax,(%rdi)
   37ff8:\tlock cmpxchg %ecx,(%rdi)
";

    #[test]
    fn locking_instructions_are_found() {
        let found: Vec<u64> = parse(OUTPUT).into_keys().collect();
        assert_eq!(found, [0x37fd8, 0x37fe8, 0x37ff0, 0x37ff8]);
        assert!(parse(OUTPUT)[&0x37fd8].starts_with("lock incq"));
    }
}
