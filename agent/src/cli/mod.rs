//! To come.
pub fn main(_a: Vec<std::ffi::OsString>) -> std::process::ExitCode {
    todo!()
}
