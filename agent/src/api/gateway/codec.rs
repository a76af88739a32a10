//! Messages that are known by their descriptors only, on and off gRPC's wire.

use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Encodes any message, and decodes one kind.
#[derive(Clone, Debug)]
pub(super) struct Transcode {
    output: MessageDescriptor,
}

impl Transcode {
    pub(super) fn to(output: &MessageDescriptor) -> Transcode {
        Transcode {
            output: output.clone(),
        }
    }
}

impl Codec for Transcode {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Transcode;
    type Decoder = Transcode;

    fn encoder(&mut self) -> Transcode {
        self.clone()
    }

    fn decoder(&mut self) -> Transcode {
        self.clone()
    }
}

impl Encoder for Transcode {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message
            .encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Transcode {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        DynamicMessage::decode(self.output.clone(), buffer)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
