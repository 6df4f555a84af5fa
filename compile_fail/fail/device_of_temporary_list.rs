//! A device is not taken out of a list that nobody keeps.
//~ error[E0716]: temporary value dropped while borrowed

fn case() -> ibverbs::Result<()> {
    let device = ibverbs::devices()?.iter().next();
    println!("{device:?}");
    Ok(())
}

fn main() {}
