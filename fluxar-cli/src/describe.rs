//! Errors of a peer, in one line.

use std::fmt::Write;

use fluxar_proto::message::ErrorRef;

use crate::notation::diagnostic;

/// Everything that an error says: `not_found (5): no such user [not processed: safe to retry]`.
pub(crate) fn error(error: &ErrorRef<'_>) -> String {
    let mut line = error.code.to_string();
    let mut add = |text: std::fmt::Arguments<'_>| line.write_fmt(text).unwrap_or_default();
    if let Some(message) = error.message.filter(|message| !message.is_empty()) {
        add(format_args!(": {message}"));
    }
    match error.processed {
        Some(false) => add(format_args!(" [not processed: safe to retry]")),
        Some(true) => add(format_args!(" [processed]")),
        None => {}
    }
    if let Some(ms) = error.retry_after_ms {
        add(format_args!(" [retry after {ms} ms]"));
    }
    if let Some(data) = error.data {
        add(format_args!(" data: {}", diagnostic(data.as_bytes())));
    }
    line
}

#[cfg(test)]
mod tests {
    use fluxar::{Code, Error};

    #[test]
    fn all_that_an_error_says() {
        let error = Error::not_found("no such user").with_processed(false);
        assert_eq!(
            super::error(&error.as_ref()),
            "not_found (5): no such user [not processed: safe to retry]"
        );
        let error = Error::new(Code(1234), "").with_data(vec![0x81, 0x41, 0xff]).with_retry_after_ms(250);
        let line = "application (1234) [retry after 250 ms] data: [h'ff']";
        assert_eq!(
            super::error(&error.with_processed(true).as_ref()),
            line.replace(") [", ") [processed] [")
        );
    }
}
