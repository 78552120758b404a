;; Writes a MySQL row as a Kafka record whose value is JSON, 16 bytes at a time.
;;
;; Memory: some words, an entry for each column, the names of the columns, the rows as received, and the records.
;;   0   the number of columns
;;   4   the address of the key's entry
;;   8   the address of the key in the last record, set by `write`
;;   16  the letters of short escapes, for the bytes from 8 to 13; 0 if there is none
;; An entry, from 64 on:
;;   0   the address and length of its name in JSON, with the colon and the opening quote
;;   8   the address and length of its name in JSON with null
;;   16  1 if the value is quoted
;;   20  the address and length of the value in the row, set by `scan`; the length of null is -1
;;
;; Up to 16 bytes after a name or a text are read and written too, and then overwritten.
(module
  (memory (export "memory") 1)

  (data (i32.const 16) "btn\00fr")

  ;; Bytes of a number as a zigzag varint: 7 bits in each.
  (func $varintSize (param $n i32) (result i32)
    (i32.div_u
      (i32.sub
        (i32.const 38)
        (i32.clz (i32.or (i32.shl (local.get $n) (i32.const 1)) (i32.const 1))))
      (i32.const 7)))

  ;; Writes a number as a zigzag varint; returns where it ends.
  (func $varint (param $o i32) (param $n i32) (result i32)
    (local.set $n (i32.shl (local.get $n) (i32.const 1)))
    (block $done
      (loop $more
        (br_if $done (i32.lt_u (local.get $n) (i32.const 128)))
        (i32.store8 (local.get $o) (i32.or (local.get $n) (i32.const 128)))
        (local.set $o (i32.add (local.get $o) (i32.const 1)))
        (local.set $n (i32.shr_u (local.get $n) (i32.const 7)))
        (br $more)))
    (i32.store8 (local.get $o) (local.get $n))
    (i32.add (local.get $o) (i32.const 1)))

  ;; Copies bytes; returns where they end.
  (func $copy (param $o i32) (param $p i32) (param $length i32) (result i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $o) (local.get $length)))
    (loop $more
      (v128.store (local.get $o) (v128.load (local.get $p)))
      (local.set $p (i32.add (local.get $p) (i32.const 16)))
      (local.set $o (i32.add (local.get $o) (i32.const 16)))
      (br_if $more (i32.lt_u (local.get $o) (local.get $end))))
    (local.get $end))

  ;; Writes the escape of a byte as JSON.stringify does; returns where it ends.
  (func $escape (param $o i32) (param $byte i32) (result i32)
    (local $letter i32)
    (i32.store8 (local.get $o) (i32.const 0x5c)) ;; \
    (local.set $letter (local.get $byte))
    (if (i32.lt_u (local.get $byte) (i32.const 0x20))
      (then
        (local.set $letter
          (if (result i32) (i32.lt_u (i32.sub (local.get $byte) (i32.const 8)) (i32.const 6))
            (then (i32.load8_u offset=8 (local.get $byte)))
            (else (i32.const 0))))))
    (if (local.get $letter)
      (then
        (i32.store8 offset=1 (local.get $o) (local.get $letter))
        (return (i32.add (local.get $o) (i32.const 2)))))
    (i32.store offset=1 (local.get $o) (i32.const 0x30303075)) ;; u000
    (i32.store8 offset=4 (local.get $o) (i32.add (i32.const 0x30) (i32.shr_u (local.get $byte) (i32.const 4))))
    (local.set $byte (i32.and (local.get $byte) (i32.const 15)))
    (i32.store8 offset=5 (local.get $o)
      (i32.add
        (local.get $byte)
        (select (i32.const 0x57) (i32.const 0x30) (i32.gt_u (local.get $byte) (i32.const 9))))) ;; a - 10, 0
    (i32.add (local.get $o) (i32.const 6)))

  ;; Writes a text with the escapes of JSON; returns where it ends.
  (func $text (param $o i32) (param $p i32) (param $length i32) (result i32)
    (local $sixteen v128)
    (local $plain i32)
    (loop $more (result i32)
      (local.set $sixteen (v128.load (local.get $p)))
      (v128.store (local.get $o) (local.get $sixteen))
      ;; How many bytes come before the first to escape.
      (local.set $plain
        (i32.ctz
          (i32.or
            (i8x16.bitmask
              (v128.or
                (i8x16.lt_u (local.get $sixteen) (v128.const i8x16 32 32 32 32 32 32 32 32 32 32 32 32 32 32 32 32))
                (v128.or
                  (i8x16.eq (local.get $sixteen) (v128.const i8x16 34 34 34 34 34 34 34 34 34 34 34 34 34 34 34 34))
                  (i8x16.eq (local.get $sixteen) (v128.const i8x16 92 92 92 92 92 92 92 92 92 92 92 92 92 92 92 92)))))
            (i32.const 0x10000))))
      (if (i32.ge_u (local.get $plain) (local.get $length))
        (then (return (i32.add (local.get $o) (local.get $length)))))
      (local.set $o (i32.add (local.get $o) (local.get $plain)))
      (local.set $p (i32.add (local.get $p) (local.get $plain)))
      (local.set $length (i32.sub (local.get $length) (local.get $plain)))
      (if (i32.lt_u (local.get $plain) (i32.const 16))
        (then
          (local.set $o (call $escape (local.get $o) (i32.load8_u (local.get $p))))
          (local.set $p (i32.add (local.get $p) (i32.const 1)))
          (local.set $length (i32.sub (local.get $length) (i32.const 1)))))
      (br $more)))

  ;; Finds the columns of a row. Returns the bytes of its JSON if nothing must be escaped.
  (func (export "scan") (param $p i32) (result i32)
    (local $entry i32)
    (local $end i32)
    (local $length i32)
    (local $quoted i32)
    (local $value i32)
    (local.set $value (i32.const 1)) ;; the closing brace
    (local.set $entry (i32.const 64))
    (local.set $end (i32.add (i32.const 64) (i32.shl (i32.load (i32.const 0)) (i32.const 5))))
    (loop $column
      (local.set $length (i32.load8_u (local.get $p)))
      (local.set $p (i32.add (local.get $p) (i32.const 1)))
      (block $found
        (br_if $found (i32.lt_u (local.get $length) (i32.const 0xfb)))
        (block $eight
          (block $three
            (block $two
              (block $null
                (br_table $null $two $three $eight (i32.sub (local.get $length) (i32.const 0xfb))))
              (local.set $length (i32.const -1))
              (br $found))
            (local.set $length (i32.load16_u (local.get $p)))
            (local.set $p (i32.add (local.get $p) (i32.const 2)))
            (br $found))
          (local.set $length (i32.and (i32.load (local.get $p)) (i32.const 0xffffff)))
          (local.set $p (i32.add (local.get $p) (i32.const 3)))
          (br $found))
        (local.set $length (i32.load (local.get $p))) ;; no row has 4 GB
        (local.set $p (i32.add (local.get $p) (i32.const 8))))
      (if (i32.eq (local.get $length) (i32.const -1))
        (then (local.set $value (i32.add (local.get $value) (i32.load offset=12 (local.get $entry)))))
        (else
          (local.set $quoted (i32.load offset=16 (local.get $entry)))
          (if (i32.eqz (local.get $quoted))
            (then
              ;; MySQL pads ZEROFILL columns with zeros, which JSON does not allow.
              (block $done
                (loop $zero
                  (br_if $done (i32.lt_u (local.get $length) (i32.const 2)))
                  (br_if $done (i32.ne (i32.load8_u (local.get $p)) (i32.const 0x30)))
                  (br_if $done
                    (i32.gt_u (i32.sub (i32.load8_u offset=1 (local.get $p)) (i32.const 0x30)) (i32.const 9)))
                  (local.set $p (i32.add (local.get $p) (i32.const 1)))
                  (local.set $length (i32.sub (local.get $length) (i32.const 1)))
                  (br $zero)))))
          (local.set $value
            (i32.add
              (i32.add (local.get $value) (local.get $length))
              (i32.add (i32.load offset=4 (local.get $entry)) (local.get $quoted))))
          (i32.store offset=20 (local.get $entry) (local.get $p))
          (local.set $p (i32.add (local.get $p) (local.get $length)))))
      (i32.store offset=24 (local.get $entry) (local.get $length))
      (local.set $entry (i32.add (local.get $entry) (i32.const 32)))
      (br_if $column (i32.lt_u (local.get $entry) (local.get $end))))
    (local.get $value))

  ;; Bytes of a record after its size field, with a value of that length.
  (func $size (param $delta i32) (param $length i32) (result i32)
    (local $keyLength i32)
    (local.set $keyLength (i32.load offset=24 (i32.load (i32.const 4))))
    (i32.add
      (i32.add
        (i32.const 3) ;; attributes, time delta, headers
        (i32.add (call $varintSize (local.get $delta)) (call $varintSize (local.get $keyLength))))
      (i32.add
        (i32.add (local.get $keyLength) (call $varintSize (local.get $length)))
        (local.get $length))))

  ;; Writes a record up to its value; returns where the value begins.
  (func $head (param $o i32) (param $delta i32) (param $length i32) (result i32)
    (local $key i32)
    (local $keyLength i32)
    (local.set $key (i32.load (i32.const 4)))
    (local.set $keyLength (i32.load offset=24 (local.get $key)))
    (local.set $o (call $varint (local.get $o) (call $size (local.get $delta) (local.get $length))))
    (i32.store16 (local.get $o) (i32.const 0)) ;; attributes, time delta
    (local.set $o
      (call $varint
        (call $varint (i32.add (local.get $o) (i32.const 2)) (local.get $delta))
        (local.get $keyLength)))
    (i32.store (i32.const 8) (local.get $o))
    (memory.copy (local.get $o) (i32.load offset=20 (local.get $key)) (local.get $keyLength))
    (call $varint (i32.add (local.get $o) (local.get $keyLength)) (local.get $length)))

  ;; Writes the record of the row that `scan` has read, which returned `length`. Returns where the record ends.
  (func (export "write") (param $out i32) (param $delta i32) (param $length i32) (result i32)
    (local $o i32)
    (local $value i32)
    (local $entry i32)
    (local $end i32)
    (local $written i32)
    (local $size i32)
    (local.set $value (call $head (local.get $out) (local.get $delta) (local.get $length)))
    (local.set $o (local.get $value))
    (local.set $entry (i32.const 64))
    (local.set $end (i32.add (i32.const 64) (i32.shl (i32.load (i32.const 0)) (i32.const 5))))
    (loop $column
      (if (i32.eq (i32.load offset=24 (local.get $entry)) (i32.const -1))
        (then
          (local.set $o
            (call $copy (local.get $o) (i32.load offset=8 (local.get $entry)) (i32.load offset=12 (local.get $entry)))))
        (else
          (local.set $o
            (call $text
              (call $copy (local.get $o) (i32.load (local.get $entry)) (i32.load offset=4 (local.get $entry)))
              (i32.load offset=20 (local.get $entry))
              (i32.load offset=24 (local.get $entry))))
          (i32.store8 (local.get $o) (i32.const 0x22)) ;; "
          (local.set $o (i32.add (local.get $o) (i32.load offset=16 (local.get $entry))))))
      (local.set $entry (i32.add (local.get $entry) (i32.const 32)))
      (br_if $column (i32.lt_u (local.get $entry) (local.get $end))))
    (i32.store8 (local.get $o) (i32.const 0x7d)) ;; }
    (local.set $o (i32.add (local.get $o) (i32.const 1)))
    (local.set $written (i32.sub (local.get $o) (local.get $value)))
    (if (i32.ne (local.get $written) (local.get $length))
      (then
        ;; Escapes made it longer than its head says, which may need more bytes too.
        (local.set $size (call $size (local.get $delta) (local.get $written)))
        (local.set $o
          (i32.sub
            (i32.add (i32.add (local.get $out) (call $varintSize (local.get $size))) (local.get $size))
            (i32.const 1)))
        (memory.copy (i32.sub (local.get $o) (local.get $written)) (local.get $value) (local.get $written))
        (drop (call $head (local.get $out) (local.get $delta) (local.get $written)))))
    (i32.store8 (local.get $o) (i32.const 0)) ;; headers
    (i32.add (local.get $o) (i32.const 1)))
)
