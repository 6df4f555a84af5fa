//! The bytes that the examples send, and how those that arrive are checked.

use anyhow::{ensure, Result};

/// Fills the bytes of message number `message`.
pub fn fill(bytes: &mut [u8], message: u64) {
    for (offset, byte) in bytes.iter_mut().enumerate() {
        *byte = pattern(message, offset);
    }
}

/// Checks every byte of message number `message`; the error tells the first that is wrong.
pub fn check(bytes: &[u8], message: u64) -> Result<()> {
    for (offset, &byte) in bytes.iter().enumerate() {
        let sent = pattern(message, offset);
        ensure!(byte == sent, "message {message}: byte {offset} is {byte:#04x}, not {sent:#04x}");
    }
    Ok(())
}

/// The byte that a message has at `offset`: another one than the message before.
fn pattern(message: u64, offset: usize) -> u8 {
    (message as usize ^ offset ^ offset >> 8 ^ offset >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(message: u64) -> Vec<u8> {
        let mut bytes = vec![0; 1000];
        fill(&mut bytes, message);
        bytes
    }

    #[test]
    fn what_was_filled_passes() {
        check(&filled(7), 7).unwrap();
    }

    #[test]
    fn a_wrong_byte_is_told() {
        let mut bytes = filled(7);
        bytes[999] ^= 1;
        let error = check(&bytes, 7).unwrap_err().to_string();
        assert_eq!(error, "message 7: byte 999 is 0xe2, not 0xe3");
    }

    #[test]
    fn messages_in_a_row_differ_everywhere() {
        assert!(filled(8).iter().zip(filled(7)).all(|(&a, b)| a != b));
    }
}
