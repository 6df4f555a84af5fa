//! A device is not taken out of a list that nobody keeps.

fn case() -> ibverbs::Result<()> {
    let list = ibverbs::devices()?;
    let device = list.iter().next();
    println!("{device:?}");
    Ok(())
}

fn main() {}
