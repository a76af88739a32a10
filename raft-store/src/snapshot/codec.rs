//! The bytes of a snapshot file.
