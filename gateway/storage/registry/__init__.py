"""Who was where and when, in the journal's file: written in the transaction of the change that made it so."""
