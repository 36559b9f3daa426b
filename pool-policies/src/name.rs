use crate::PolicyError;

/// Longest name of a profile, region or tenant, in bytes: with a suffix it still fits a file name.
const MAX_LENGTH: usize = 64;

/// Checks a name that may become a directory's name or part of a command line.
///
/// Letters, digits, dots, dashes and underscores of ASCII, beginning with a letter or digit. That
/// leaves no way to write a path (`..`, `/`), a flag (`--x`), a hidden file or a control character.
pub(crate) fn check(kind: &'static str, name: &str) -> Result<(), PolicyError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let why = match name.as_bytes() {
        [] => "it is empty",
        bytes if bytes.len() > MAX_LENGTH => "it is longer than 64 bytes",
        [first, ..] if !first.is_ascii_alphanumeric() => "it must begin with a letter or a digit",
        bytes if bytes.iter().all(|byte| plain(*byte)) => return Ok(()),
        _ => "only letters, digits, dots, dashes and underscores are allowed",
    };
    Err(PolicyError::Name { kind, name: shorten(name), why })
}

/// As much of a stranger's string as an error message should repeat.
pub(crate) fn shorten(name: &str) -> String {
    name.chars().take(MAX_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for name in ["work", "eu-west", "a", "9", "user_1.test", &"x".repeat(64)] {
            assert!(check("profile", name).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_could_be_a_path_or_a_flag_are_refused() {
        let long = "x".repeat(65);
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            "/etc",
            "-x",
            "--proxy-server=x",
            ".hidden",
            "_x",
            "a b",
            "a\0b",
            "a\nb",
            "ä",
            "a%2f",
            "a=b",
            "a,b",
            "~",
            &long,
        ] {
            assert!(check("profile", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn an_error_repeats_only_the_beginning_of_a_long_name() {
        let error = check("profile", &"/".repeat(100_000)).unwrap_err();
        assert!(error.to_string().len() < 300);
    }
}
