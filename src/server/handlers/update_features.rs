//! UpdateFeatures: the features that there are stay at the version that they
//! have (KIP-584, KIP-778).

use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{ApiKey, UpdateFeaturesRequest, UpdateFeaturesResponse};

use crate::cluster::controller::ControlError;
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::api_versions::FEATURES;
use super::shared::{control_error, error_message, no_time, text};

pub const API: ApiSpec = ApiSpec::new(ApiKey::UpdateFeatures, 0, 2);

/// The response names no single features from here on.
const ALL_OR_NONE_FROM: i16 = 2;
/// An upgrade, or one of the two kinds of downgrade.
const UPGRADE_TYPES: std::ops::RangeInclusive<i8> = 1..=3;

pub async fn handle(_: &Session, Call { version, request }: Call<UpdateFeaturesRequest>) -> UpdateFeaturesResponse {
    respond(version, request)
}

/// One update that cannot be is the error of all, as in Kafka.
fn respond(version: i16, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let updates = &request.feature_updates;
    let failed = no_time(request.timeout_ms).or_else(|| updates.iter().find_map(|update| check(update).err()));
    if let Some(error) = failed {
        return UpdateFeaturesResponse::default()
            .with_error_code(error.code.code())
            .with_error_message(error_message(error.message));
    }
    let done = |update: FeatureUpdateKey| {
        UpdatableFeatureResult::default().with_feature(update.feature).with_error_message(Some(text("NONE")))
    };
    let results = match version >= ALL_OR_NONE_FROM {
        true => Vec::new(),
        false => request.feature_updates.into_iter().map(done).collect(),
    };
    UpdateFeaturesResponse::default().with_error_message(None).with_results(results)
}

fn check(update: &FeatureUpdateKey) -> Result<(), ControlError> {
    let (feature, level) = (&*update.feature, update.max_version_level);
    let wrong = |why: String| {
        let message = format!(
            "The update failed for all features since the following feature had an error: Invalid update version {level} \
             for feature {feature}. {why}"
        );
        Err(control_error(ErrorCode::InvalidUpdateVersion, message))
    };
    if !UPGRADE_TYPES.contains(&update.upgrade_type) {
        return wrong("The controller does not support the given upgrade type.".to_owned());
    }
    match FEATURES.iter().find(|(name, ..)| *name == feature) {
        None => wrong("This broker does not support this feature.".to_owned()),
        Some((_, min, max)) if !(*min..=*max).contains(&level) => {
            wrong(format!("This broker only supports versions {min}-{max}."))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::through_the_wire;
    use super::*;

    fn ask(version: i16, timeout_ms: i32, updates: &[(&str, i16, i8)]) -> (i16, Vec<(String, i16)>) {
        let updates = updates.iter().map(|(feature, level, kind)| {
            FeatureUpdateKey::default()
                .with_feature(text(feature))
                .with_max_version_level(*level)
                .with_upgrade_type(*kind)
        });
        let request =
            UpdateFeaturesRequest::default().with_timeout_ms(timeout_ms).with_feature_updates(updates.collect());
        let seen = through_the_wire(ApiKey::UpdateFeatures, version, &respond(version, request));
        (seen.error_code, seen.results.iter().map(|r| (r.feature.to_string(), r.error_code)).collect())
    }

    #[test]
    fn features_stay_as_they_are() {
        for version in API.min..=API.max {
            let told = if version < 2 { vec![("group.version".to_owned(), 0)] } else { vec![] };
            assert_eq!(ask(version, 1000, &[("group.version", 1, 1)]), (0, told));
            assert_eq!(ask(version, 1000, &[]), (0, vec![]));
            for wrong in [
                ("group.version", 0, 2),
                ("group.version", 2, 1),
                ("group.version", -1, 1),
                ("group.version", 1, 7),
                ("metadata.version", 25, 1),
                ("", 1, 1),
            ] {
                assert_eq!(ask(version, 1000, &[("group.version", 1, 1), wrong]), (95, vec![]), "{wrong:?}");
            }
            assert_eq!(ask(version, 0, &[("group.version", 1, 1)]), (7, vec![]));
        }
    }
}
