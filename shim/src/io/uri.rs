//! Where the output goes, read from `stdout` as containerd reads it.
//!
//! What has no scheme is a path, taken literally; with one, the path is percent-decoded and the
//! arguments of a logger are the query's keys and values in their order, `%` and `+` decoded. Of a
//! key that comes twice the first value counts; a pair with a wrong escape or a `;` is left out.

use std::collections::HashSet;

use corten::error::{Error, Result};

/// What takes the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// Paths: FIFOs of the client's, or files that exist.
    Paths,
    /// One file for both streams, made if need be.
    File(String),
    /// A program.
    Binary {
        path: String,
        args: Vec<String>,
        /// It has to say that it is ready; otherwise closing the descriptor is enough.
        must_say_ready: bool,
    },
}

impl Target {
    pub(crate) fn parse(uri: &str) -> Result<Self> {
        let Some((scheme, rest)) = split_scheme(uri) else { return Ok(Self::Paths) };
        let must_say_ready = match scheme.as_str() {
            "fifo" => return Ok(Self::Paths),
            "file" => return Ok(Self::File(path_of(uri, rest)?)),
            "binary" => false,
            "binary-v2" => true,
            other => return Err(Error::Usage(format!("unknown STDIO scheme {other}"))),
        };
        let query = rest.split_once('#').map_or(rest, |(before, _)| before);
        let query = query.split_once('?').map_or("", |(_, query)| query);
        Ok(Self::Binary { path: path_of(uri, rest)?, args: arguments(query), must_say_ready })
    }
}

/// The path of a stream of [`Target::Paths`].
pub(crate) fn path(uri: &str) -> Result<String> {
    match split_scheme(uri) {
        Some((scheme, rest)) if scheme == "fifo" => path_of(uri, rest),
        _ => Ok(uri.to_owned()),
    }
}

/// The scheme in lower case, and what follows its colon.
fn split_scheme(uri: &str) -> Option<(String, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_scheme.then(|| (scheme.to_ascii_lowercase(), rest))
}

/// The path in `//host/path?query#fragment`; the host says nothing to us.
fn path_of(uri: &str, rest: &str) -> Result<String> {
    let rest = rest.split(['?', '#']).next().unwrap_or("");
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.find('/').map_or("", |slash| &rest[slash..]),
        None => rest,
    };
    let wrong = |why| Error::Usage(format!("unable to parse stdout uri {uri:?}: {why}"));
    let path = decode(path, false).ok_or_else(|| wrong("invalid escape"))?;
    if !path.starts_with('/') || path.contains('\0') {
        return Err(wrong("no absolute path"));
    }
    Ok(path)
}

fn arguments(query: &str) -> Vec<String> {
    let mut known = HashSet::new();
    let mut arguments = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(key), Some(value)) = (decode(key, true), decode(value, true))
            && known.insert(key.clone())
        {
            arguments.extend([key, value]);
        }
    }
    arguments
}

/// Percent-decoded; none if an escape or the result is not what it should be.
fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let (high, low) = (bytes.next()? as char, bytes.next()? as char);
                u8::try_from(high.to_digit(16)? * 16 + low.to_digit(16)?).ok()?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(path: &str, args: &[&str], must_say_ready: bool) -> Target {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Target::Binary { path: path.to_owned(), args, must_say_ready }
    }

    /// With a search of all keys for each one it would be minutes.
    #[test]
    fn many_arguments_take_no_time() {
        let query: String = (0..100_000).map(|n| format!("&a{n}=b&a{}", n / 2)).collect();
        let begun = std::time::Instant::now();
        let Target::Binary { args, .. } = Target::parse(&format!("binary:///l?{query}")).unwrap()
        else {
            panic!("no binary");
        };
        assert_eq!(args.len(), 200_000);
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    #[test]
    fn the_scheme_decides() {
        let parse = |uri| Target::parse(uri).unwrap();
        for paths in ["", "/run/c/out", "relative", "/a:b", "fifo:///run/c", "FIFO:/x", "1a:b"] {
            assert_eq!(parse(paths), Target::Paths, "{paths}");
        }
        assert_eq!(
            parse("file:///var/log/a%20b.log?x=1#y"),
            Target::File("/var/log/a b.log".into())
        );
        assert_eq!(parse("file://localhost/x"), Target::File("/x".into()));
        assert_eq!(parse("file:/x+y"), Target::File("/x+y".into()));
        assert_eq!(parse("binary:///bin/logger"), binary("/bin/logger", &[], false));
        assert_eq!(parse("Binary-v2:///l?a=b"), binary("/l", &["a", "b"], true));
        let error = Target::parse("http://x/y").unwrap_err().to_string();
        assert_eq!(error, "unknown STDIO scheme http");
        for wrong in ["file:", "file:x", "file://host", "binary:///%zz", "file:///a%00b"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn arguments_are_keys_and_values_in_order() {
        let of = |query: &str| arguments(query).join("|");
        assert_eq!(of("z=1&a=2"), "z|1|a|2");
        assert_eq!(of("test"), "test|");
        assert_eq!(of("a=1&a=2&b="), "a|1|b|");
        assert_eq!(of("-c=printf%20x%20%3E%265"), "-c|printf x >&5");
        assert_eq!(of("a+b=c+d&bad=%g1&semi;colon=1&&=x"), "a b|c d||x");
    }

    #[test]
    fn a_path_is_literal_without_a_scheme() {
        assert_eq!(path("/a%20b?c#d").unwrap(), "/a%20b?c#d");
        assert_eq!(path("fifo:///a%20b").unwrap(), "/a b");
    }
}
