//! What was probably meant.

/// The candidate that a misspelt word is nearest to, if it is near enough to be meant.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    let distance = |candidate: &str| {
        strsim::damerau_levenshtein(&word, &candidate.to_lowercase().replace('-', "_"))
    };
    let prefix = |candidate: &str| {
        word.len() >= 3 && (candidate.starts_with(&word) || candidate.ends_with(&word))
    };
    candidates
        .into_iter()
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= (candidate.len().max(word.len()) / 3).max(1)
                || prefix(candidate)
                || strsim::jaro_winkler(&word, candidate) >= 0.88
        })
        // Of two that are as near, the one that the word begins: `of` is rather `off` than `on`.
        .min_by_key(|(distance, candidate)| (*distance, !candidate.starts_with(&word)))
        .map(|(_, candidate)| candidate)
}

/// The hint that offers it.
pub(super) fn did_you_mean(candidate: &str) -> String {
    format!("did you mean `{candidate}`?")
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn or(words: &[impl AsRef<str>]) -> String {
    match words {
        [] => String::new(),
        [only] => only.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} or {}", first.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let keys = ["min_size", "max_size", "max_waiting", "lease_timeout"];
        assert_eq!(nearest("max_sise", keys), Some("max_size"));
        assert_eq!(nearest("MaxSize", keys), Some("max_size"));
        assert_eq!(nearest("max-size", keys), Some("max_size"));
        assert_eq!(nearest("waiting", keys), Some("max_waiting"));
        assert_eq!(nearest("of", ["on", "off"]), Some("off"));
        assert_eq!(nearest("chrome", ["auto", "shell", "chromium"]), Some("chromium"));
    }

    #[test]
    fn another_word_is_not() {
        assert_eq!(nearest("colour", ["min_size", "max_size", "listen"]), None);
    }
}
