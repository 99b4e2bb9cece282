//! Server reflection, v1 and v1alpha: what grpcurl and its like learn about the API without the `.proto` files.
//!
//! Owns which descriptors are told. The google.rpc ones are among them although no method names them: without them
//! grpcurl can't show the details of an error.

use tonic_reflection::server::{Builder, v1, v1alpha};

use super::pb;

/// Both versions of the reflection service, to be added to the router; grpcurl 1.8.6 speaks only v1alpha.
pub fn services() -> (
    v1::ServerReflectionServer<impl v1::ServerReflection>,
    v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>,
) {
    let invariant = "the descriptors are compiled in";
    (
        builder().build_v1().expect(invariant),
        builder().build_v1alpha().expect(invariant),
    )
}

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // Each version lists the other, too.
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorProto;
    use tokio_stream::StreamExt;
    use tonic_reflection::pb::{
        v1::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        },
        v1alpha,
    };

    use super::*;

    async fn ask(request: MessageRequest) -> MessageResponse {
        let (service, _) = services();
        let mut client = ServerReflectionClient::new(service);
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        };
        let mut answers = client
            .server_reflection_info(tokio_stream::once(request))
            .await
            .unwrap()
            .into_inner();
        answers
            .next()
            .await
            .unwrap()
            .unwrap()
            .message_response
            .unwrap()
    }

    #[tokio::test]
    async fn lists_every_service() {
        let MessageResponse::ListServicesResponse(list) =
            ask(MessageRequest::ListServices(String::new())).await
        else {
            panic!("no list");
        };
        let mut names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
                "rowgate.v1.AdminService",
                "rowgate.v1.ExportService",
            ]
        );
    }

    #[tokio::test]
    async fn knows_the_messages_and_the_error_details() {
        for symbol in [
            "rowgate.v1.ExportService.SubmitExport",
            "rowgate.v1.ValueRows",
            "google.rpc.ErrorInfo",
            "google.rpc.BadRequest",
            "google.rpc.RetryInfo",
            "google.protobuf.ListValue",
        ] {
            let answer = ask(MessageRequest::FileContainingSymbol(symbol.to_owned())).await;
            let MessageResponse::FileDescriptorResponse(files) = answer else {
                panic!("{symbol}: {answer:?}");
            };
            let file = FileDescriptorProto::decode(&files.file_descriptor_proto[0][..]).unwrap();
            assert!(symbol.starts_with(file.package()), "{symbol}");
        }
    }

    #[tokio::test]
    async fn v1alpha_answers_too() {
        let (_, service) = services();
        let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(service);
        let request = v1alpha::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(
                v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                    "google.rpc.ErrorInfo".to_owned(),
                ),
            ),
        };
        let mut answers = client
            .server_reflection_info(tokio_stream::once(request))
            .await
            .unwrap()
            .into_inner();
        let answer = answers.next().await.unwrap().unwrap();
        assert!(matches!(
            answer.message_response,
            Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
        ));
    }
}
