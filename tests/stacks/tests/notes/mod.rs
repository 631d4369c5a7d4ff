//! A gRPC service with one method of each kind.

/// What prost makes of `message Note { string text = 1; }`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Note {
    #[prost(string, tag = "1")]
    pub text: String,
}

impl From<&str> for Note {
    fn from(text: &str) -> Self {
        Self { text: text.into() }
    }
}

// As tonic-build wrote it. It needs no protoc when the service is described in Rust:
//
// ```
// use tonic_build::manual::{Builder, Method, Service};
//
// let note = |name, route| {
//     Method::builder().name(name).route_name(route).codec_path("tonic_prost::ProstCodec")
//         .input_type("crate::notes::Note").output_type("crate::notes::Note")
// };
// let service = Service::builder().name("Notes").package("notes")
//     .method(note("echo", "Echo").build())
//     .method(note("gather", "Gather").client_streaming().build())
//     .method(note("repeat", "Repeat").server_streaming().build())
//     .method(note("chat", "Chat").client_streaming().server_streaming().build())
//     .build();
// Builder::new().out_dir(directory).compile(&[service]);
// ```
#[allow(unused_qualifications, reason = "it is as it was written")]
mod generated;

pub use generated::{notes_client::NotesClient, notes_server};
