//! Random numbers, of the kernel's seed or one that is given.

/// A generator of random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// One that the kernel seeds: its numbers are different each time.
    pub(crate) fn new() -> Random {
        let mut seed = [0; 8];
        // SAFETY: the pointer is to as many writable bytes as the length says.
        let got = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        if got != 8 {
            // An old kernel, or a sandbox: time and process are different enough for what this is for.
            let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let nanos = time.map_or(0, |time| time.as_nanos() as u64);
            seed = (nanos ^ (u64::from(std::process::id()) << 32)).to_ne_bytes();
        }
        Random(u64::from_ne_bytes(seed))
    }

    /// One whose numbers are the same for the same seed.
    pub(crate) fn from_seed(seed: u64) -> Random {
        // Neighbouring seeds begin far from each other.
        let mut random = Random(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x5851_f42d_4c95_7f2d);
        random.next();
        random
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
