//! The JSON path of a byte in a JSON text.
//!
//! serde_json tells where in the text an error is. That is turned into a path by walking the text
//! once more, after the fact, so that the way without errors has to know nothing about paths. (A
//! deserializer that tracks them, serde_path_to_error, doubles the runtime's size: every type is
//! then compiled a second time. `docs/adr/0006-paths-from-offsets.md`.)

/// One step down from a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// The path of the value that ends at byte `offset` of the valid JSON `text`, or begins there, or
/// is a scalar around it; or with `around` of the innermost object or array around that byte. Empty for the whole text.
pub(super) fn path_at(text: &[u8], offset: usize, around: bool) -> String {
    let mut walk = Walk { text, at: 0, offset, around, steps: Vec::new(), found: None };
    walk.value();
    show(&walk.found.unwrap_or_default())
}

fn show(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key(key) if path.is_empty() => path.push_str(key),
            Step::Key(key) => path.extend([".", key]),
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    offset: usize,
    around: bool,
    steps: Vec<Step>,
    found: Option<Vec<Step>>,
}

impl Walk<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    /// Goes over one value and remembers it if it is the one.
    fn value(&mut self) {
        let start = self.at;
        match self.peek() {
            b'{' | b'[' => self.container(),
            b'"' => {
                self.string();
            }
            _ => {
                while !matches!(self.peek(), 0 | b',' | b'}' | b']') {
                    self.at += 1;
                }
            }
        }
        let inside = start < self.offset && self.offset <= self.at;
        let is_container = matches!(self.text.get(start), Some(b'{' | b'['));
        let hit = if self.around {
            is_container && inside
        } else {
            self.at == self.offset
                || start == self.offset
                || (!is_container && start < self.offset && self.offset < self.at)
        };
        if hit && self.found.is_none() {
            self.found = Some(self.steps.clone());
        }
    }

    fn container(&mut self) {
        let object = self.peek() == b'{';
        self.at += 1;
        let mut index = 0;
        while !matches!(self.peek(), 0 | b'}' | b']') {
            if object {
                let key = self.string();
                // The colon.
                self.at += 1;
                self.steps.push(Step::Key(key));
            } else {
                self.steps.push(Step::Index(index));
                index += 1;
            }
            self.value();
            self.steps.pop();
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
    }

    /// Goes over a string; its contents, with escapes left as they are.
    fn string(&mut self) -> String {
        let start = self.at + 1;
        self.at = start;
        loop {
            match self.peek() {
                b'"' | 0 => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        let inner = self.text.get(start..self.at).unwrap_or_default();
        self.at += 1;
        String::from_utf8_lossy(inner).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_in_its_value() {
        let text = br#"{"a":{"b":[1,"x\"y",{"c":true}]},"d":-3}"#;
        let end = |needle: &[u8]| {
            text.windows(needle.len()).position(|w| w == needle).unwrap() + needle.len()
        };
        assert_eq!(path_at(text, end(b"[1"), false), "a.b[0]");
        assert_eq!(path_at(text, end(b"y\""), false), "a.b[1]");
        assert_eq!(path_at(text, end(b"true"), false), "a.b[2].c");
        assert_eq!(path_at(text, end(b"true"), true), "a.b[2]");
        assert_eq!(path_at(text, end(b"-3"), false), "d");
        assert_eq!(path_at(text, end(b"\"b\":"), false), "a.b");
        assert_eq!(path_at(text, end(b"-3"), true), "");
    }

    #[test]
    fn any_offset_of_any_text_is_survived() {
        let text = br#"{"a":[{},[],"\\",null]}"#;
        for length in 0..=text.len() {
            for offset in 0..=text.len() + 1 {
                path_at(text.get(..length).unwrap(), offset, offset % 2 == 0);
            }
        }
    }
}
