//! Varints: seven bits a byte, the lowest first, the top bit of all but the last byte set.
//! Lengths and tags of flexible versions are unsigned (KIP-482); numbers inside of records are
//! signed, in zigzag (KIP-98).

/// A varint that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadVarint {
    /// The bytes end before it does.
    CutOff,
    /// It has more bits than asked for.
    TooLarge,
}

#[inline]
pub fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, zigzag(value));
}

/// Bytes that [`put_signed`] writes, 1 to 10.
pub fn signed_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Takes a varint of up to `bits` bits, 64 at most, off the front.
pub fn take_unsigned(bytes: &mut &[u8], bits: u32) -> Result<u64, BadVarint> {
    let mut value = 0;
    for shift in (0..bits.min(u64::BITS)).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(BadVarint::CutOff)?;
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        if low >> (bits - shift).min(7) != 0 {
            return Err(BadVarint::TooLarge);
        }
        value |= low << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(BadVarint::TooLarge)
}

/// As [`take_unsigned`], in zigzag.
pub fn take_signed(bytes: &mut &[u8], bits: u32) -> Result<i64, BadVarint> {
    take_unsigned(bytes, bits).map(unzigzag)
}

/// The number that zigzag writes as `raw`; 32 bits give a number of 32 bits.
#[inline]
pub fn unzigzag(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}

fn zigzag(value: i64) -> u64 {
    (value << 1) as u64 ^ (value >> 63) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_out_as_they_went_in() {
        for value in [0, 1, -1, 63, 64, -64, -65, 300, i64::from(i32::MAX), i64::from(i32::MIN), i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_signed(&mut bytes, value);
            assert_eq!(bytes.len(), signed_bytes(value), "{value}");
            for bits in [32, 64] {
                let mut rest = &bytes[..];
                let taken = take_signed(&mut rest, bits);
                match i32::try_from(value).is_err() && bits == 32 {
                    true => assert_eq!(taken, Err(BadVarint::TooLarge), "{value}"),
                    false => assert_eq!((taken, rest.len()), (Ok(value), 0), "{value} of {bits} bits"),
                }
            }
        }
    }

    #[test]
    fn what_is_cut_off_is_told_from_what_is_too_large() {
        let take = |mut bytes: &[u8], bits| take_unsigned(&mut bytes, bits);
        assert_eq!(take(&[0x80, 0x80], 32), Err(BadVarint::CutOff));
        assert_eq!(take(&[], 32), Err(BadVarint::CutOff));
        assert_eq!(take(&[0xff, 0xff, 0xff, 0xff, 0x0f], 32), Ok(u64::from(u32::MAX)));
        assert_eq!(take(&[0xff, 0xff, 0xff, 0xff, 0x1f], 32), Err(BadVarint::TooLarge));
        assert_eq!(take(&[0x80, 0x80, 0x80, 0x80, 0x80], 32), Err(BadVarint::TooLarge));
        assert_eq!(take(&[0xff; 9].iter().copied().chain([1]).collect::<Vec<u8>>(), 64), Ok(u64::MAX));
        assert_eq!(take(&[0xff; 9].iter().copied().chain([2]).collect::<Vec<u8>>(), 64), Err(BadVarint::TooLarge));
        assert_eq!(take(&[0x80; 11], 64), Err(BadVarint::TooLarge));
    }
}
