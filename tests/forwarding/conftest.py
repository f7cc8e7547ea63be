from .receiver import receiver as receiver
