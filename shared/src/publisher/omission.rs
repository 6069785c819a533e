//! Leaves out parts of an event that is too large for a message.

use crate::event::{Order, OrderEvent};

/// An event from which parts can be left out.
pub(super) trait Reducible {
    /// Leaves out a part, adds it to `omitted`, and removes the pointers into it from `assumed`.
    fn leave_out(&mut self, omission: &Omission);

    /// The event's JSON, if it takes at most `room` bytes.
    fn json_within(&self, room: usize) -> Option<String>;
}

/// The event's JSON without `unmapped`, and without as many further parts as it takes to fit into `room` bytes; `None`
/// if it never fits.
pub(super) fn reduced(mut event: impl Reducible, room: usize) -> Option<String> {
    OMISSIONS.iter().find_map(|omission| {
        event.leave_out(omission);
        event.json_within(room)
    })
}

/// A part of the event that a message can do without.
pub(super) struct Omission {
    pub(super) pointers: &'static [&'static str],
    leave_out: fn(&mut OrderEvent),
}

impl Omission {
    pub(super) fn holds(&self, pointer: &str) -> bool {
        self.pointers.iter().any(|omitted| pointer.starts_with(omitted))
    }
}

impl Reducible for OrderEvent {
    fn leave_out(&mut self, omission: &Omission) {
        (omission.leave_out)(self);
        self.data.assumed.retain(|pointer| !omission.holds(pointer));
        let pointers = omission.pointers.iter().map(|&pointer| pointer.to_owned());
        self.data.omitted.extend(pointers);
    }

    fn json_within(&self, room: usize) -> Option<String> {
        self.to_json_within(room)
    }
}

/// The parts in the order in which they are left out, the least important first. After the items only rare cases
/// remain: the last steps exist because an order that cannot be published completely must still be announced.
pub(super) const OMISSIONS: [Omission; 5] = [
    Omission {
        pointers: &["/data/unmapped"],
        leave_out: |event| event.data.unmapped = None,
    },
    Omission {
        pointers: &["/data/order/items"],
        leave_out: |event| event.data.order.items = None,
    },
    Omission {
        pointers: &[
            "/data/order/shipping/fulfillments",
            "/data/order/adjustments",
            "/data/order/custom_fields",
        ],
        leave_out: |event| {
            let order = &mut event.data.order;
            (order.shipping.fulfillments, order.adjustments, order.custom_fields) = (None, None, None);
        },
    },
    Omission {
        pointers: &["/data/warnings"],
        leave_out: |event| event.data.warnings.clear(),
    },
    Omission {
        pointers: &[
            "/data/notification",
            "/data/change",
            "/data/refund",
            "/data/order/discounts",
            "/data/order/tax_lines",
            "/data/order/customer",
            "/data/order/billing_address",
            "/data/order/shipping_address",
            "/data/order/shipping",
            "/data/order/payment",
            "/data/order/note",
            "/data/order/url",
            "/data/order/cancel_reason",
        ],
        leave_out: |event| {
            (event.data.notification, event.data.change, event.data.refund) = (None, None, None);
            let order = std::mem::take(&mut event.data.order);
            event.data.order = Order {
                id: order.id,
                number: order.number,
                channel: order.channel,
                parent_id: order.parent_id,
                locale: order.locale,
                status: order.status,
                provider_status: order.provider_status,
                payment_status: order.payment_status,
                provider_payment_status: order.provider_payment_status,
                currency: order.currency,
                totals: order.totals,
                placed_at: order.placed_at,
                updated_at: order.updated_at,
                completed_at: order.completed_at,
                cancelled_at: order.cancelled_at,
                ..Order::default()
            };
        },
    },
];
