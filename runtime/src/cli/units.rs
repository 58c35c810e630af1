//! Sizes with units, as Docker and runc read them.

use std::ffi::OsStr;

use super::options::utf8;

/// Bytes from `512m`, `1.5G`, `64 KiB`, `2097152`, or -1 for unlimited. Units are powers of 1024.
///
/// # Errors
/// Says what is wrong with the text.
pub fn bytes(value: &OsStr) -> Result<i64, String> {
    let text = utf8(value)?;
    let bad = || format!("invalid size {text:?}");
    if text == "-1" {
        return Ok(-1);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(bad()),
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1 << shift).ok_or_else(|| format!("size {text:?} is too big"));
    }
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match number.split_once('.') {
        Some((whole, part)) if digits(whole) && digits(part) => {
            let number = number.parse::<f64>().map_err(|_| bad())?;
            let size = number * (1_i64 << shift) as f64;
            // The cast saturates, so compare before it.
            if size < i64::MAX as f64 {
                Ok(size as i64)
            } else {
                Err(format!("size {text:?} is too big"))
            }
        }
        _ if digits(number) => Err(format!("size {text:?} is too big")),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, size) in [
            ("0", 0),
            ("-1", -1),
            ("1024", 1024),
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("1.5g", 3 << 29),
            ("64 KiB", 64 << 10),
            ("1kb", 1024),
            ("32b", 32),
            ("2T", 2 << 40),
            ("1p", 1 << 50),
        ] {
            assert_eq!(bytes(text.as_ref()), Ok(size), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "m", "-2", "1x", "1..5m", ".5m", "5.m", "1 2", "8192p", "99999999999999999999"]
        {
            assert!(bytes(text.as_ref()).is_err(), "{text}");
        }
    }
}
