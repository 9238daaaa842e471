"""The place of ksmd in its round over the guests (mm/ksm.c: ksm_scan, the list of mm_slots)."""

from ksmtuned_py.ksmdmodel.guestmemory import Group, GuestMemory


class Cursor:
    """A place in the list of guests: between two passes it stands before the first."""

    def __init__(self) -> None:
        self.guests: list[GuestMemory] = []
        self.page = 0
        self._guest = -1
        self._group = 0

    @property
    def between_passes(self) -> bool:
        """Whether the next step begins a pass."""
        return self._guest < 0

    def add(self, guest: GuestMemory, *, at_end: bool) -> None:
        """Adds a process whose memory becomes mergeable just behind the cursor, so that it is scanned last."""
        if at_end or self.between_passes:
            self.guests.append(guest)
            return
        self.guests.insert(self._guest, guest)
        self._guest += 1

    def end(self, guest: GuestMemory) -> None:
        """Moves a process that ends right behind the cursor; what ksmd keeps for it stays until the cursor comes by."""
        place = self.guests.index(guest)
        if place == self._guest:
            return
        del self.guests[place]
        if place < self._guest:
            self._guest -= 1
        if guest.rmap_items:
            self.guests.insert(self._guest + 1, guest)

    def rewind(self) -> None:
        """Goes back to before the first guest, and drops those that have ended."""
        self._guest = -1
        self.guests = [guest for guest in self.guests if guest.alive]

    def step(self) -> Group | None:
        """Returns the group whose page is next; None at the end of the pass."""
        if self.between_passes:
            self._go_to(0)
        while self._guest < len(self.guests):
            guest = self.guests[self._guest]
            if not guest.alive:
                guest.drop()
                del self.guests[self._guest]
                self._go_to(self._guest)
            elif self._group == len(guest.groups):
                self._go_to(self._guest + 1)
            elif self.page < guest.groups[self._group].spec.pages:
                return guest.groups[self._group]
            else:
                self._group, self.page = self._group + 1, 0
        self._guest = -1
        return None

    def _go_to(self, guest: int) -> None:
        self._guest, self._group, self.page = guest, 0, 0
