//! Sequences that once showed a difference, made short. Each is run as printed when it was found.

pub(crate) struct Case {
    /// What is equal now.
    pub(crate) name: &'static str,
    /// One step on each line.
    pub(crate) steps: &'static str,
}

pub(crate) const CASES: &[Case] = &[Case {
    name: "a range of everything, sorted by what two keys have in common",
    steps: r#"
            {"put":{"key":"b","value":"1"}}
            {"put":{"key":"a","value":"1"}}
            {"range":{"key":"\u0000","range_end":"\u0000","sort_order":2,"sort_target":4}}
        "#,
}];
