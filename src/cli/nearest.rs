//! The name that was meant.

/// The nearest of `names`, if one is near enough to be a slip of the fingers.
pub(super) fn nearest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = typed.chars().count().div_ceil(3).min(4);
    let typed = typed.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&typed, &name.to_lowercase());
    let near = names.into_iter().map(|name| (distance(name), name)).filter(|(distance, _)| *distance <= allowed);
    near.min().map(|(_, name)| name)
}

/// `; did you mean NAME?`, or nothing.
pub(super) fn did_you_mean<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(typed, names).map_or(String::new(), |name| format!("; did you mean {name}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_understood_and_strangers_are_not() {
        let names = ["orders", "orders-dlq", "payments", "a"];
        assert_eq!(nearest("ordrs", names), Some("orders"));
        assert_eq!(nearest("Orders", names), Some("orders"));
        assert_eq!(nearest("oredrs-dlq", names), Some("orders-dlq"));
        assert_eq!(nearest("paymetn", names), Some("payments"));
        assert_eq!(nearest("shipments", ["orders"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
