//! stub
/// stub
pub struct ErrorCode;
impl ErrorCode {
    /// stub
    pub fn of(code: &str) -> Option<&'static Self> {
        if code == "TIMEOUT" || code == "CONTENT_POLICY_VIOLATION" { Some(&ErrorCode) } else { None }
    }
}
