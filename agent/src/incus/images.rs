//! Images: copied from a server, fetched from a URL or uploaded from a file of this host; and their aliases.

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::operation::Outcome;
use super::{Incus, IncusError, path};

/// Images are large and servers may be far.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(1_800);

impl Incus {
    /// Makes an image. `body` is Incus' own, but for `source: {type: file, path}`, which names a file of this host
    /// that is read here and uploaded.
    ///
    /// An image of a server is new only once: of one that is here already Incus makes no second.
    pub async fn create_image(&self, project: &str, body: &Value) -> Result<(), IncusError> {
        let source = |field: &str| body.get("source")?.get(field)?.as_str();
        let slow = self.clone().with_operation_limit(DOWNLOAD_LIMIT);
        if source("type") == Some("file") {
            return slow
                .upload_image(project, Path::new(source("path").unwrap_or_default()), body)
                .await;
        }
        let collection = path::collection(super::Kind::Image, project, "")?;
        let answer = slow.write(Method::POST, &collection, Some(body), None).await?;
        // A forgotten one was either way: the next look tells.
        slow.finish(answer, Duration::ZERO).await.map(|_| ())
    }

    async fn upload_image(&self, project: &str, file: &Path, body: &Value) -> Result<(), IncusError> {
        let unreadable = |error: std::io::Error| IncusError::Unreadable {
            path: file.to_owned(),
            source: error,
        };
        let file = tokio::fs::File::open(file).await.map_err(unreadable)?;
        if !file.metadata().await.map_err(unreadable)?.is_file() {
            return Err(unreadable(std::io::Error::other("it is no file")));
        }
        let properties = body.get("properties").and_then(Value::as_object);
        let properties: Vec<String> = properties
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| {
                Some(format!("{}={}", path::encode(key), path::encode(value.as_str()?)))
            })
            .collect();
        let public = body.get("public").and_then(Value::as_bool).unwrap_or_default();
        let headers = [
            ("X-Incus-properties", properties.join("&")),
            ("X-Incus-public", public.to_string()),
        ];
        let collection = path::collection(super::Kind::Image, project, "")?;
        let answer = self
            .transport
            .upload(&collection, &headers, file, DOWNLOAD_LIMIT)
            .await?;
        let Outcome::Success = self.finish(answer, Duration::ZERO).await? else {
            return Err(IncusError::OperationLost);
        };
        Ok(())
    }

    /// Whether an image of this alias is on the host, for instances of this project.
    pub async fn image_alias_exists(&self, project: &str, alias: &str) -> Result<bool, IncusError> {
        match self.read(&path::image_alias(project, alias)?).await {
            Ok(_) => Ok(true),
            Err(IncusError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives an image one more alias. One that is another image's is refused.
    pub async fn add_image_alias(
        &self,
        project: &str,
        alias: &str,
        fingerprint: &str,
    ) -> Result<(), IncusError> {
        path::image_alias(project, alias)?;
        let body = json!({"name": alias, "target": fingerprint});
        self.write(Method::POST, &path::image_aliases(project)?, Some(&body), None)
            .await
            .map(|_| ())
    }

    /// Takes an alias off. One that is not there is gone already.
    pub async fn remove_image_alias(&self, project: &str, alias: &str) -> Result<(), IncusError> {
        let removed = self
            .write(Method::DELETE, &path::image_alias(project, alias)?, None, None)
            .await;
        match removed {
            Ok(_) | Err(IncusError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
