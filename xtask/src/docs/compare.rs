//! What a page says a command prints, against what it printed.
//!
//! Invariant: without `…` only the same text matches, but for spaces at the ends of lines.

const ANY: &str = "…";

/// `None` where it matches; else the first line that was expected and did not come.
pub(super) fn difference(expected: &[String], printed: &str) -> Option<String> {
    let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
    let expected: Vec<&str> = expected.iter().map(|line| line.trim_end()).collect();
    let mut furthest = 0;
    if lines(&expected, &printed, 0, &mut furthest) {
        return None;
    }
    Some(match expected.get(furthest) {
        Some(line) => format!("expected: {line}"),
        None => "printed more than is said".to_owned(),
    })
}

fn lines(expected: &[&str], printed: &[&str], at: usize, furthest: &mut usize) -> bool {
    *furthest = at.max(*furthest);
    match expected.split_first() {
        None => printed.is_empty(),
        Some((&ANY, rest)) => (0..=printed.len()).any(|skip| lines(rest, &printed[skip..], at + 1, furthest)),
        Some((line, rest)) => match printed.split_first() {
            Some((found, others)) => fits(line, found) && lines(rest, others, at + 1, furthest),
            None => false,
        },
    }
}

/// `…` in `pattern` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once(ANY) else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split(ANY).collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(found) = text.find(part) else { return false };
        text = &text[found + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differs(expected: &str, printed: &str) -> Option<String> {
        difference(&expected.lines().map(str::to_owned).collect::<Vec<_>>(), printed)
    }

    #[test]
    fn ellipses_stand_for_anything() {
        assert_eq!(differs("a\n…\nd", "a\nb\nc\nd\n"), None);
        assert_eq!(differs("…\nb", "b"), None);
        assert_eq!(differs("took … s, … bytes", "took 1.2 s, 7 bytes"), None);
        assert_eq!(differs("", ""), None);
        assert_eq!(differs("a  ", "a"), None);
    }

    #[test]
    fn everything_else_must_be_there() {
        assert_eq!(differs("a\nb", "a\nc").as_deref(), Some("expected: b"));
        assert_eq!(differs("a", "a\nb").as_deref(), Some("printed more than is said"));
        assert!(differs("a\n…\nz", "a\nb").is_some());
        assert!(differs("x … y", "x y").is_some());
        assert!(differs("", "something").is_some());
    }
}
