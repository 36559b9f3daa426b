//! Whatever a file holds, the answer is a configuration or findings that point into the file.

use pool_cli::config::template::Template;
use pool_cli::config::{Loader, Place};
use proptest::collection::vec;
use proptest::prelude::*;

/// One change of a text: at which character, how many are cut, and what is put there.
fn change() -> impl Strategy<Value = (prop::sample::Index, usize, String)> {
    let piece = prop_oneof![
        "[a-z_]{0,9}",
        "[\\[\\]{}=\"'\\\\,.#\n\r\t -]{0,3}",
        "\\PC{0,3}",
        Just("= 99999999999999999999\n".to_owned()),
        Just("[profiles.\"\"]\n".to_owned()),
        Just("[regions.eu]\nproxies = [{}]\n".to_owned()),
    ];
    (any::<prop::sample::Index>(), 0..12_usize, piece)
}

/// The template with its lines uncommented, so that a change hits settings.
fn active() -> String {
    Template::new().render().lines().fold(String::new(), |text, line| {
        let line = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line);
        text + line + "\n"
    })
}

proptest! {
    #[test]
    fn a_changed_file_is_answered(changes in vec(change(), 1..8)) {
        let mut text: Vec<char> = active().chars().collect();
        for (at, cut, piece) in changes {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            text.splice(at..end, piece.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(findings) = Loader::new().text("pool.toml", text.as_str()).load() {
            prop_assert!(findings.iter().any(|finding| !finding.is_warning()));
            for finding in findings.iter() {
                let Some(Place::File { line, column, .. }) = finding.place else {
                    return Err(TestCaseError::fail(format!("without a place: {finding}")));
                };
                let found = text.split('\n').nth(line - 1);
                prop_assert!(found.is_some_and(|found| column <= found.chars().count() + 1), "{}", finding);
                prop_assert!(!finding.message.contains('\n'), "{}", finding);
            }
        }
    }

    #[test]
    fn any_variable_is_answered(name in "POOL__[A-Z_]{0,20}", value in "\\PC{0,12}") {
        if let Err(findings) = Loader::new().variable(name.as_str(), value).load() {
            prop_assert_eq!(findings.iter().count(), 1, "{}", findings);
            let place = findings.iter().next().and_then(|finding| finding.place.clone());
            prop_assert_eq!(place, Some(Place::Environment { name }));
        }
    }
}
