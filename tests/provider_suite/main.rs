//! One suite of tests that every [`Provider`](shared::Provider) has to pass, and the tests of what only one provider
//! has.
//!
//! The providers and their facts are in [`tests::providers`]. A test of the suite is a function that is generic over
//! the provider, and a line in `provider_suite`.

mod authentication;
mod deliveries;
mod drift;
mod field_coverage;
mod golden;
mod malformed_bodies;
mod malformed_payloads;
mod reconciliation;
mod specific;
mod subscriptions;
mod unmapped;

/// Declares the tests of a topic for one provider.
macro_rules! topic {
    ($provider:ty, $topic:ident: $($test:ident,)+) => {
        mod $topic {
            $(
                #[test]
                fn $test() {
                    crate::$topic::$test::<$provider>();
                }
            )+
        }
    };
    ($provider:ty, async $topic:ident: $($test:ident,)+) => {
        mod $topic {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    crate::$topic::$test::<$provider>().await;
                }
            )+
        }
    };
}

macro_rules! provider_suite {
    ($($name:ident: $provider:ty,)+) => {$(
        mod $name {
            topic! { $provider, async golden:
                every_event_normalizes_to_its_golden_event,
            }
            topic! { $provider, field_coverage:
                no_field_of_any_event_is_lost,
                the_table_in_the_readme_is_current,
                every_field_that_is_read_occurs_in_an_event,
            }
            topic! { $provider, unmapped:
                every_unmapped_field_has_a_reason,
            }
            topic! { $provider, drift:
                known_events_report_no_drift,
                each_renamed_or_retyped_field_is_drift,
            }
            topic! { $provider, malformed_payloads:
                a_malformed_field_costs_that_field_only,
                numbers_as_text_are_the_same_event,
                every_leaf_of_any_payload_is_kept,
            }
            topic! { $provider, malformed_bodies:
                unusual_json_is_an_order,
                invalid_json_is_quarantined,
                a_wrapped_body_is_the_same_event,
                the_query_names_no_second_event,
                an_order_may_have_a_hundred_thousand_items,
                no_damage_to_the_bytes_is_a_panic,
            }
            topic! { $provider, async deliveries:
                every_event_is_published_as_its_golden_event,
                a_repeat_is_a_duplicate,
                another_body_is_a_conflict_or_another_event,
                another_method_is_answered_405_with_allow,
                a_body_in_base64_is_the_same_event,
                a_wrapped_order_is_published_and_stored_as_sent,
                a_body_without_an_order_is_stored,
                a_body_over_the_limit_is_answered_413,
                unsigned_query_parameters_create_no_second_item,
                a_slash_after_the_shop_is_accepted,
            }
            topic! { $provider, async authentication:
                every_attack_is_refused_and_writes_nothing,
                a_repeated_credential_header_is_refused,
                a_rotated_credential_is_valid_until_it_is_removed,
                wrong_credentials_are_counted_apart_from_noise,
            }
        }
    )+};
}

tests::for_each_provider!(provider_suite);

/// The tests of the providers with an order API.
mod order_apis {
    macro_rules! order_api_suite {
        ($($name:ident: $provider:ty,)+) => {$(
            mod $name {
                topic! { $provider, async reconciliation:
                    a_listed_order_is_the_order_of_the_webhook,
                    an_unreadable_order_does_not_hold_up_the_others,
                    the_same_state_is_the_same_event,
                }
            }
        )+};
    }

    tests::for_each_provider_with_order_api!(order_api_suite);
}
