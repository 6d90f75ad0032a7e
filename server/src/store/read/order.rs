//! Orders and positions as the database is told them.

use bson::{Bson, Document, doc};

use crate::store::ids::{read_id, stored_id};
use crate::task::{Order, Position};

/// The order as the database is told it.
pub(super) fn sort(order: Order) -> Document {
    match order {
        Order::Claim => doc! { "priority": -1, "ready_at": 1, "_id": 1 },
        Order::Newest => doc! { "created_at": -1, "_id": -1 },
    }
}

/// The stored fields that make up a position.
pub(super) fn fields(order: Order) -> Document {
    match order {
        Order::Claim => doc! { "priority": 1, "ready_at": 1 },
        Order::Newest => doc! { "priority": 1, "created_at": 1 },
    }
}

/// A position from these fields, if they can be read.
pub(super) fn read_position(order: Order, stored: &Document) -> Option<Position> {
    let time = match order {
        Order::Claim => stored.get_datetime("ready_at"),
        Order::Newest => stored.get_datetime("created_at"),
    };
    let priority = stored.get("priority").and_then(|priority| match priority {
        Bson::Int32(priority) => Some(*priority),
        Bson::Int64(priority) => i32::try_from(*priority).ok(),
        _ => None,
    });
    Some(Position { priority: priority?, time: time.ok()?.to_chrono(), id: read_id(stored.get("_id")?)? })
}

/// Tasks behind a position, in parts that are each one range of the order's index. MongoDB merges them in order.
pub(super) fn behind(order: Order, position: Position) -> Vec<Document> {
    let Position { priority, time, id } = position;
    let (time, id) = (bson::DateTime::from_chrono(time), stored_id(id));
    match order {
        Order::Claim => vec![
            doc! { "priority": priority, "ready_at": time, "_id": { "$gt": id } },
            doc! { "priority": priority, "ready_at": { "$gt": time } },
            doc! { "priority": { "$lt": priority } },
        ],
        Order::Newest => {
            vec![doc! { "created_at": time, "_id": { "$lt": id } }, doc! { "created_at": { "$lt": time } }]
        }
    }
}
