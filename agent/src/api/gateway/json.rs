//! Messages as JSON, by protobuf's own rules: names as in the `.proto` files, bytes in base64, 64-bit integers as
//! text, zero values left out. Read are the lower-camel names, url-safe base64 and plain integers too, and what
//! is not known is passed over, as etcd does.

use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::Status;

const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);
const WRITE: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);

/// The first message in `text`, and an empty one if there is no text; what follows is not looked at.
pub(super) fn parse(kind: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, Status> {
    if text.trim_ascii().is_empty() {
        return Ok(DynamicMessage::new(kind.clone()));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    DynamicMessage::deserialize_with_options(kind.clone(), &mut deserializer, &READ)
        .map_err(|error| refusal(&error))
}

fn refusal(error: &serde_json::Error) -> Status {
    if error.is_eof() {
        return unexpected_end();
    }
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let what = text.strip_suffix(&place).unwrap_or(&text);
    Status::invalid_argument(format!(
        "proto: (line {}:{}): {what}",
        error.line(),
        error.column()
    ))
}

/// The text ends within a message.
pub(super) fn unexpected_end() -> Status {
    Status::invalid_argument("unexpected EOF")
}

/// The text of a message.
pub(super) fn print(message: &DynamicMessage) -> Result<Vec<u8>, Status> {
    let mut text = Vec::with_capacity(256);
    write(message, &mut text)?;
    Ok(text)
}

/// Appends a message of a stream, on a line of its own.
pub(super) fn print_line(message: &DynamicMessage) -> Result<Vec<u8>, Status> {
    let mut line = Vec::with_capacity(256);
    line.extend_from_slice(b"{\"result\":");
    write(message, &mut line)?;
    line.extend_from_slice(b"}\n");
    Ok(line)
}

fn write(message: &DynamicMessage, text: &mut Vec<u8>) -> Result<(), Status> {
    let mut serializer = serde_json::Serializer::new(text);
    message
        .serialize_with_options(&mut serializer, &WRITE)
        .map_err(|error| Status::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_reflect::DescriptorPool;
    use proto::etcdserverpb::request_op::Request as Op;
    use proto::etcdserverpb::{RangeRequest, RangeResponse, RequestOp, TxnRequest};
    use proto::mvccpb::KeyValue;

    use super::*;

    fn kind(name: &str) -> MessageDescriptor {
        let pool = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
        pool.get_message_by_name(&format!("etcdserverpb.{name}")).unwrap()
    }

    fn range(text: &str) -> Result<RangeRequest, String> {
        parse(&kind("RangeRequest"), text.as_bytes())
            .map(|message| RangeRequest::decode(message.encode_to_vec().as_slice()).unwrap())
            .map_err(|status| format!("{:?} {}", status.code(), status.message()))
    }

    #[test]
    fn what_is_read() {
        let foo = RangeRequest {
            key: "foo".into(),
            range_end: "\u{0}".into(),
            limit: 5,
            sort_order: 2,
            ..RangeRequest::default()
        };
        for text in [
            r#"{"key":"Zm9v","range_end":"AA==","limit":5,"sort_order":"DESCEND"}"#,
            r#"{"key":"Zm9v","rangeEnd":"AA","limit":"5","sortOrder":2,"bogus":[1]}"#,
            " {\"key\":\"Zm9v\",\"range_end\":\"AA==\",\"limit\":5.0,\"sort_order\":2,\"revision\":null} and more",
        ] {
            assert_eq!(range(text), Ok(foo.clone()), "{text}");
        }
        assert_eq!(range(""), Ok(RangeRequest::default()));
        assert_eq!(range("{}\n"), Ok(RangeRequest::default()));
        let unnamed = range(r#"{"key":"_-8","sort_order":"SIDEWAYS"}"#).unwrap();
        assert_eq!(
            (unnamed.key.as_ref(), unnamed.sort_order),
            (b"\xff\xef".as_slice(), 0)
        );
    }

    #[test]
    fn what_is_refused() {
        let refused = [
            (r#"{"key":"Zm9v""#, "InvalidArgument unexpected EOF"),
            (
                r#"{"key":"!!"}"#,
                "InvalidArgument proto: (line 1:11): invalid base64",
            ),
            (r#"{"key":5}"#, "InvalidArgument proto: (line 1:"),
            (r#"{"limit":"many"}"#, "InvalidArgument proto: (line 1:"),
            (
                r#"{"limit":99999999999999999999}"#,
                "InvalidArgument proto: (line 1:",
            ),
            ("[]", "InvalidArgument proto: (line 1:"),
            ("null", "InvalidArgument proto: (line 1:"),
        ];
        for (text, expected) in refused {
            let told = range(text).unwrap_err();
            assert!(told.starts_with(expected), "{text}: {told}");
        }
        let nested = "[".repeat(1 << 20);
        range(&format!(r#"{{"bogus":{nested}"#)).unwrap_err();
    }

    #[test]
    fn only_one_of_a_oneof() {
        let twice =
            br#"{"compare":[{"version":"1","mod_revision":"2"}],"success":[{"request_range":{"key":"YQ"}}]}"#;
        let told = parse(&kind("TxnRequest"), twice).unwrap_err();
        assert!(told.message().contains("target_union"), "{told:?}");
        let once = br#"{"success":[{"requestRange":{"key":"YQ"}}]}"#;
        let message = parse(&kind("TxnRequest"), once).unwrap();
        let txn = TxnRequest::decode(message.encode_to_vec().as_slice()).unwrap();
        let asked = RangeRequest {
            key: "a".into(),
            ..RangeRequest::default()
        };
        assert_eq!(
            txn.success,
            [RequestOp {
                request: Some(Op::RequestRange(asked))
            }]
        );
    }

    #[test]
    fn what_is_written() {
        let response = RangeResponse {
            kvs: vec![KeyValue {
                key: vec![0xff, 0xef].into(),
                create_revision: i64::MAX,
                lease: -1,
                ..KeyValue::default()
            }],
            count: 1,
            ..RangeResponse::default()
        };
        let bytes = response.encode_to_vec();
        let message = DynamicMessage::decode(kind("RangeResponse"), bytes.as_slice()).unwrap();
        let expected =
            r#"{"kvs":[{"key":"/+8=","create_revision":"9223372036854775807","lease":"-1"}],"count":"1"}"#;
        assert_eq!(String::from_utf8(print(&message).unwrap()).unwrap(), expected);
        assert_eq!(
            String::from_utf8(print_line(&message).unwrap()).unwrap(),
            format!("{{\"result\":{expected}}}\n")
        );
    }
}
