//! The known name that a wrong one was probably meant to be.

/// `None` when nothing is similar enough to be worth a guess.
pub(super) fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    const SIMILAR_ENOUGH: f64 = 0.7;
    let wrong = wrong.to_lowercase();
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(&wrong, name), *name))
        .filter(|(similarity, _)| *similarity >= SIMILAR_ENOUGH)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_typing_errors_and_makes_no_wild_guesses() {
        let known = ["listen", "gateway_timeout", "roles"];
        assert_eq!(nearest("listn", &known), Some("listen"));
        assert_eq!(nearest("Gateway-Timeout", &known), Some("gateway_timeout"));
        assert_eq!(nearest("zzz", &known), None);
    }
}
