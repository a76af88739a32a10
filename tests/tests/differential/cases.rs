//! Sequences that once showed a difference, made short. Each is run as printed when it was found.

pub(crate) struct Case {
    /// What is equal now.
    pub(crate) name: &'static str,
    /// One step on each line.
    pub(crate) steps: &'static str,
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a range of everything, sorted by what two keys have in common",
        steps: r#"
            {"put":{"key":"b","value":"1"}}
            {"put":{"key":"a","value":"1"}}
            {"range":{"key":"\u0000","range_end":"\u0000","sort_order":2,"sort_target":4}}
        "#,
    },
    Case {
        name: "a put that keeps the value of no key and names no lease: the lease is missed first",
        steps: r#"
            {"put":{"key":"a","lease":3,"ignore_value":true}}
            {"txn":{"success":[{"put":{"key":"a","lease":3,"ignore_value":true}}]}}
        "#,
    },
    Case {
        name: "a negative revision is the current one, but compacted in a transaction",
        steps: r#"
            {"put":{"key":"a","value":"1"}}
            {"range":{"key":"a","revision":"-1"}}
            {"txn":{"success":[{"range":{"key":"a","revision":"-1"}}]}}
            {"txn":{"success":[{"put":{"key":"b"}},{"range":{"key":"a","revision":"-2"}}]}}
            {"range":{"key":"b"}}
        "#,
    },
    Case {
        name: "a watch from a revision that is compacted, while another is compacted",
        steps: r#"
            {"put":{"key":"a"}}
            {"put":{"key":"a"}}
            {"put":{"key":"a"}}
            {"watch":{"stream":2,"key":"b","range_end":"c"}}
            {"compact":{"revision":"now-1"}}
            {"watch":{"stream":2,"key":"a","start_revision":"compacted-1"}}
            {"compact":{"revision":"now+0"}}
        "#,
    },
    Case {
        name: "a key that one transaction puts and deletes: a watch is told the value before the transaction",
        steps: r#"
            {"watch":{"range_end":"ÿÿ","prev_kv":true}}
            {"txn":{"success":[{"put":{"key":"b/2"}},{"delete":{"key":"b/1","range_end":"\u0000"}}]}}
            {"put":{"key":"b/2","value":"1"}}
            {"txn":{"success":[{"put":{"key":"b/2","value":"2"}},{"delete":{"key":"b/1","range_end":"\u0000"}}]}}
            {"watch":{"stream":1,"key":"b","range_end":"c","start_revision":"now-2","prev_kv":true}}
        "#,
    },
    Case {
        name: "a key that one transaction deletes and puts begins anew, for watches that catch up too",
        steps: r#"
            {"put":{"key":"b"}}
            {"put":{"key":"b/2"}}
            {"watch":{"stream":1,"range_end":"ÿÿ","prev_kv":true}}
            {"txn":{"success":[{"delete":{"key":"ab","range_end":"\u0000"}},{"put":{"key":"b"}}]}}
            {"watch":{"range_end":"ÿÿ","start_revision":"compacted+2","prev_kv":true}}
        "#,
    },
    Case {
        name: "a transaction of serializable ranges only, at a member that took no write",
        steps: r#"
            {"put":{"key":"a"}}
            {"txn":{"success":[{"range":{"key":"a","serializable":true}}]}}
            {"range":{"key":"a"}}
            {"txn":{"success":[{"range":{"key":"a","serializable":true}}]}}
        "#,
    },
];
