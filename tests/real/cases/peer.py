"""A hostile or broken peer at the other end of the tunnel, whichever side it is.

In the mode server-entry the node under test is a server and the peer dials it; in client-entry
it is a client, and dials the peer.
"""

from case import ENTRIES, case
from hostile import answers, openings, sessions, sockets
from hostile.row import play_all


@case("peer: answers out of order cost their request alone", ENTRIES, seconds=60, rows=answers.ORDER)
@case("peer: payloads of another protocol cost their request alone", ENTRIES, seconds=60, rows=answers.PROTOCOLS)
@case("peer: answers with impossible heads", ENTRIES, seconds=60, rows=answers.HEADS)
@case("peer: answers to calls that are no messages", ENTRIES, seconds=60, rows=answers.CALLS)
@case("peer: data and grants beyond what is allowed", ENTRIES, seconds=60, rows=answers.CREDIT)
@case("peer: requests of others are out of its reach", ENTRIES, seconds=60, rows=answers.IDENTITY)
@case("peer: what a newer one may send is ignored", ENTRIES, seconds=60, rows=answers.UNKNOWN)
@case("peer: frames that are none end their socket alone", ENTRIES, seconds=60, rows=sockets.FRAMES)
@case("peer: it reaches what it was offered and nothing else", ENTRIES, seconds=60, rows=openings.NAMES)
@case("peer: requests with bad names and traces", ENTRIES, seconds=60, rows=openings.IDS)
@case("peer: requests out of order cost themselves alone", ENTRIES, seconds=60, rows=openings.NUMBERS)
@case("peer: requests with impossible heads", ENTRIES, seconds=60, rows=openings.HEADS)
@case("peer: more requests than allowed", ENTRIES, seconds=60, rows=openings.LIMITS)
@case("peer: bytes that are no message end the session, and the next one works", ENTRIES, seconds=60, rows=sessions.BYTES)
@case("peer: broken rules end the session, and the next one works", ENTRIES, seconds=60, rows=sessions.RULES)
@case("peer: offers that are none", ENTRIES, seconds=60, rows=sessions.OFFERS)
async def table(t, rows):
    await play_all(t, rows)
