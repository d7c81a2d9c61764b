use std::string::ToString;

use super::*;

// spec: §16.1 §16.2
#[test]
fn the_codes_have_their_numbers_and_names() {
    let expected = "1 cancelled 2 unknown 3 invalid_argument 4 deadline_exceeded 5 not_found 6 already_exists 7 \
        permission_denied 8 resource_exhausted 9 failed_precondition 10 aborted 11 out_of_range 12 \
        unimplemented 13 internal 14 unavailable 15 data_loss 16 unauthenticated 100 malformed 101 \
        protocol_violation 102 unsupported_version 103 message_too_large 104 flow_control 105 \
        no_common_suite 106 decrypt_failed 107 session_unknown 108 heartbeat_timeout 109 draining";
    let codes: Vec<_> = Code::ALL.iter().map(|code| std::format!("{} {}", code.0, code.name())).collect();
    assert_eq!(codes.join(" "), expected);
}

// spec: §16.3
#[test]
fn codes_show_as_name_and_number() {
    assert_eq!(Code::NOT_FOUND.to_string(), "not_found (5)");
    assert_eq!(std::format!("{:?}", Code::DRAINING), "Code(draining (109))");
    assert_eq!(Code(1000).to_string(), "application (1000)");
    assert_eq!(Code(999).to_string(), "unassigned (999)");
}

#[test]
fn a_borrowed_error_shows_its_name_and_its_message() {
    let named = ErrorRef { message: Some("no such user"), ..ErrorRef::new(Code::NOT_FOUND) };
    assert_eq!(named.to_string(), "not_found: no such user");
    assert_eq!(ErrorRef::new(Code::INTERNAL).to_string(), "internal");
    let application = ErrorRef { message: Some("out of stock"), ..ErrorRef::new(Code(1234)) };
    assert_eq!(application.to_string(), "application (1234): out of stock");
}

#[cfg(feature = "alloc")]
mod owned {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_owned_error_becomes_borrowed_and_back() {
        let error =
            Error::unavailable("busy").with_data(hex("81 01")).with_retry_after_ms(50).with_processed(true);
        let borrowed = error.as_ref();
        assert_eq!(borrowed.code, Code::UNAVAILABLE);
        assert_eq!((borrowed.message, borrowed.retry_after_ms), (Some("busy"), Some(50)));
        assert_eq!(borrowed.data.map(Item::as_bytes), Some(&[0x81, 0x01][..]));
        assert_eq!(Error::from(borrowed), error);
        assert_eq!(error.to_string(), "unavailable: busy");
        assert_eq!(Error::internal("").as_ref(), ErrorRef::new(Code::INTERNAL));
    }

    // spec: §16.4
    #[test]
    fn a_retry_is_safe_only_where_nothing_was_acted_upon() {
        let error = Error::unavailable("");
        assert!(!error.is_retry_safe());
        assert!(!error.clone().with_processed(true).is_retry_safe());
        assert!(error.with_processed(false).is_retry_safe());
    }

    #[test]
    fn data_that_is_no_item_is_not_sent() {
        let error = Error::internal("").with_data(Bytes::from_static(&[0x81]));
        assert_eq!(error.as_ref().data, None);
    }

    #[test]
    fn a_decode_error_becomes_malformed() {
        let error = Error::from(Envelope::decode(&[0x00]).expect_err("no message"));
        assert_eq!(error, Error::new(Code::MALFORMED, "first byte is not 0x87 at offset 0"));
    }
}
