//! The grammar of repository names and tags, as the OCI distribution specification 1.1 has it, and of references to images.
//!
//! Invariant: a name that passes can stand in a URL path as it is: no `%`, no `..`, no empty element.

/// Longest repository name, characters: what registries take, host included.
pub const MAX_NAME_CHARS: usize = 255;
/// Longest tag, characters.
pub const MAX_TAG_CHARS: usize = 128;

/// Elements of `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, joined by `/`.
#[must_use]
pub fn is_repository(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_CHARS && name.split('/').all(is_element)
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[must_use]
pub fn is_tag(tag: &str) -> bool {
    let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    tag.len() <= MAX_TAG_CHARS
        && tag.bytes().all(rest)
        && tag.bytes().next().is_some_and(|first| first != b'.' && first != b'-')
}

fn is_element(element: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = element.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    word(*first) && word(*last) && bytes.split(|b| word(*b)).all(is_separator)
}

/// What stands between two letters: nothing, `.`, `_`, `__`, or any number of `-`.
fn is_separator(between: &[u8]) -> bool {
    matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|b| *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_the_specification() {
        for name in ["a", "library/nginx", "a.b/c_d/e__f/g---h", "0/1", "127.0.0.1/x"] {
            assert!(is_repository(name), "{name}");
        }
        let long = "a".repeat(256);
        for name in [
            "", "/", "a/", "/a", "a//b", "..", "a/../b", "A", "a/B", "a%2e", "a..b", "a___b", "a._b", "-a",
            "a-", ".a", "a b", "a\0", "ä", "a:b", "a?b", "a\\b", &long,
        ] {
            assert!(!is_repository(name), "{name:?}");
        }
    }

    #[test]
    fn tags_of_the_specification() {
        for tag in ["latest", "v1.2.3-rc_4", "_x", &"t".repeat(128)] {
            assert!(is_tag(tag), "{tag}");
        }
        for tag in ["", ".x", "-x", "a/b", "a%2f", "a b", "..", "ä", &"t".repeat(129)] {
            assert!(!is_tag(tag), "{tag}");
        }
    }

    proptest! {
        #[test]
        fn made_of_elements_and_separators_passes(
            elements in prop::collection::vec("[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", 1..4)
        ) {
            prop_assert!(is_repository(&elements.join("/")));
        }

        #[test]
        fn whatever_passes_is_safe_in_a_path(name in "\\PC{0,40}") {
            if is_repository(&name) {
                prop_assert!(!name.contains("..") && !name.contains('%') && !name.contains("//"));
                prop_assert!(name.is_ascii());
            }
            let _ = is_tag(&name);
        }
    }
}
