//! The headers inside of a transaction's answer: each operation's says the revision it saw or made.
//!
//! Apply answers without headers. All writes of a transaction share one revision, so the answer itself tells which
//! operations came before the first of them.

use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{ResponseHeader, ResponseOp, TxnResponse};

/// Fills in the headers of `responses`, given the store's revision right after the transaction.
pub(super) fn fill(responses: &mut [ResponseOp], revision: i64) {
    let before = if responses.iter().any(writes) {
        revision - 1
    } else {
        revision
    };
    fill_from(responses, before, revision);
}

/// Returns the revision that the operation after these sees.
fn fill_from(responses: &mut [ResponseOp], mut seen: i64, made: i64) -> i64 {
    for response in responses {
        if writes_itself(response) {
            seen = made;
        }
        let header = Some(ResponseHeader {
            revision: seen,
            ..ResponseHeader::default()
        });
        match &mut response.response {
            Some(Response::ResponseRange(range)) => range.header = header,
            Some(Response::ResponsePut(put)) => put.header = header,
            Some(Response::ResponseDeleteRange(delete)) => delete.header = header,
            Some(Response::ResponseTxn(TxnResponse {
                header, responses, ..
            })) => {
                // etcd leaves this one empty.
                *header = Some(ResponseHeader::default());
                seen = fill_from(responses, seen, made);
            }
            None => {}
        }
    }
    seen
}

fn writes(response: &ResponseOp) -> bool {
    match &response.response {
        Some(Response::ResponseTxn(nested)) => nested.responses.iter().any(writes),
        _ => writes_itself(response),
    }
}

fn writes_itself(response: &ResponseOp) -> bool {
    match &response.response {
        Some(Response::ResponsePut(_)) => true,
        Some(Response::ResponseDeleteRange(delete)) => delete.deleted > 0,
        Some(Response::ResponseRange(_) | Response::ResponseTxn(_)) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use proto::etcdserverpb::{DeleteRangeResponse, PutResponse, RangeResponse};

    use super::*;

    fn op(response: Response) -> ResponseOp {
        ResponseOp {
            response: Some(response),
        }
    }

    fn range() -> ResponseOp {
        op(Response::ResponseRange(RangeResponse::default()))
    }

    fn put() -> ResponseOp {
        op(Response::ResponsePut(PutResponse::default()))
    }

    fn delete(deleted: i64) -> ResponseOp {
        op(Response::ResponseDeleteRange(DeleteRangeResponse {
            deleted,
            ..DeleteRangeResponse::default()
        }))
    }

    fn nested(responses: Vec<ResponseOp>) -> ResponseOp {
        op(Response::ResponseTxn(TxnResponse {
            responses,
            ..TxnResponse::default()
        }))
    }

    fn shown(responses: &[ResponseOp]) -> String {
        let one = |response: &ResponseOp| match &response.response {
            Some(Response::ResponseRange(range)) => range.header.unwrap().revision.to_string(),
            Some(Response::ResponsePut(put)) => put.header.unwrap().revision.to_string(),
            Some(Response::ResponseDeleteRange(delete)) => delete.header.unwrap().revision.to_string(),
            Some(Response::ResponseTxn(nested)) => {
                assert_eq!(nested.header, Some(ResponseHeader::default()));
                format!("[{}]", shown(&nested.responses))
            }
            None => "-".to_owned(),
        };
        responses.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// The expectations are what etcd 3.5.16 answered to the same transactions.
    #[test]
    fn as_etcd_answers() {
        let cases = [
            (vec![range()], 1, "1"),
            (vec![range(), put(), range(), delete(0)], 2, "1 2 2 2"),
            (
                vec![
                    delete(0),
                    nested(vec![range(), nested(vec![])]),
                    put(),
                    nested(vec![range(), put()]),
                ],
                3,
                "2 [2 []] 3 [3 3]",
            ),
            (vec![delete(0)], 3, "3"),
            (vec![delete(1), range()], 4, "4 4"),
            // Writes in a nested transaction are seen after it.
            (
                vec![range(), nested(vec![range(), put()]), range()],
                5,
                "4 [4 5] 5",
            ),
        ];
        for (mut responses, revision, expected) in cases {
            fill(&mut responses, revision);
            assert_eq!(shown(&responses), expected);
        }
    }
}
