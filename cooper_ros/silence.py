"""Why no image arrives on a topic: told from what is offered there."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy

from cooper_ros.topics import message_of, transported

TRANSPORTS = ('raw', 'compressed')


def why_silent(node: Node, topic: str, transport: str, reliable: bool) -> str:
    """Return why no image came yet, and the remedy.

    :param topic: of the raw images, as it resolves
    :param transport: raw or compressed, which is subscribed to
    :param reliable: whether the subscription asks for reliable delivery
    """
    subscribed = transported(node, topic, transport)
    wanted = _type_name(transport)
    offers = node.get_publishers_info_by_topic(subscribed)
    others = sorted({offer.topic_type for offer in offers} - {wanted})
    fitting = [offer for offer in offers if offer.topic_type == wanted]
    if fitting:
        if reliable and all(offer.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for offer in fitting):
            return f'{subscribed} is published best effort only, and image_reliability is reliable; set best_effort'
        return f'{subscribed} has a publisher but no image came yet; check the camera'
    if others:
        return f'{subscribed} carries {", ".join(others)}, not {wanted}; remap image_raw to a topic of camera images'
    for other in TRANSPORTS:
        place = transported(node, topic, other)
        offers = node.get_publishers_info_by_topic(place)
        if any(offer.topic_type == _type_name(other) for offer in offers):
            return f'no image on {subscribed} yet, but {place} is published; set image_transport to {other}'
    return f'no image on {subscribed} yet; start a camera, or remap it'


def _type_name(transport: str) -> str:
    return f'sensor_msgs/msg/{message_of(transport).__name__}'
