//! Looking for bytes that must be quoted or escaped, many at a time.

const WIDE: usize = 16;
const HALF: usize = 8;

/// Whether any byte is special. Branch-free over windows, so that the compiler vectorises it; the last window
/// overlaps the one before instead of leaving a tail. `is_special` must be cheap comparisons.
#[inline(always)]
pub(super) fn any(bytes: &[u8], is_special: impl Fn(u8) -> bool + Copy) -> bool {
    if bytes.len() >= WIDE {
        let (windows, rest) = bytes.as_chunks::<WIDE>();
        if windows.iter().any(|window| window_any(window, is_special)) {
            return true;
        }
        return !rest.is_empty()
            && bytes
                .last_chunk::<WIDE>()
                .is_some_and(|window| window_any(window, is_special));
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<HALF>(), bytes.last_chunk::<HALF>()) {
        return window_any(first, is_special) | window_any(last, is_special);
    }
    bytes.iter().any(|&byte| is_special(byte))
}

#[inline(always)]
fn window_any<const N: usize>(window: &[u8; N], is_special: impl Fn(u8) -> bool) -> bool {
    window
        .iter()
        .fold(0_u8, |found, &byte| found | u8::from(is_special(byte)))
        != 0
}

#[cfg(test)]
mod tests {
    use super::any;

    #[test]
    fn finds_a_byte_at_every_place_of_every_length() {
        for len in 0..70 {
            let mut bytes = vec![b'a'; len];
            assert!(!any(&bytes, |b| b == b'"' || b == b'\n'), "length {len}");
            for at in 0..len {
                bytes[at] = b'"';
                assert!(
                    any(&bytes, |b| b == b'"' || b == b'\n'),
                    "place {at} of {len}"
                );
                bytes[at] = b'a';
            }
        }
    }
}
