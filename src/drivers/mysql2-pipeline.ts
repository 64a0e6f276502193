/** What we touch of the inside of mysql2's connection. No other file does. */
interface Inside {
  /** The number of the next packet of a command and its reply. */
  sequenceId: number
  /** The command whose reply comes now, or next. */
  _command: unknown
  /** Starts a command, or puts it behind those that are under way. */
  addCommand(command: Command): unknown
}

/** `start` writes the command, and returns what takes its reply: nothing when there will be none. */
interface Command {
  start(packet: unknown, connection: Inside): unknown
  emit(event: 'end'): unknown
  /** Of an `execute`: none until the server has prepared it. */
  readonly statement?: unknown
}

/**
 * Has each command written when it is added, though others are under way. mysql2 starts a command when those before it were
 * answered; here it is started at once, with the number of the reply under way put aside, and has only to take its reply when
 * mysql2 starts it. Nothing may be added behind an `execute` that waits for its `prepare`: `late` is told of one, and what it
 * returns is called when that is written.
 */
export function pipelineCommands(connection: object, late: () => () => void): void {
  const inside = connection as Inside
  const addCommand = inside.addCommand.bind(inside)
  inside.addCommand = (command) => {
    if ('statement' in command && command.statement === undefined) {
      tellWhenStarted(command, late())
      return addCommand(command)
    }
    // With nothing under way mysql2 does the same by itself.
    if (!inside._command) return addCommand(command)
    const { sequenceId } = inside
    inside.sequenceId = 0
    let takeReply: unknown
    let next: number
    try {
      takeReply = command.start(undefined, inside)
    } finally {
      next = inside.sequenceId
      inside.sequenceId = sequenceId
    }
    // Refused for its values, or prepared before, or without a reply: over. Some releases go on to wait for the reply.
    if (next === 0 || !takeReply) {
      command.emit('end')
      return command
    }
    command.start = () => {
      inside.sequenceId = next
      return takeReply
    }
    return addCommand(command)
  }
}

function tellWhenStarted(command: Command, tell: () => void): void {
  const start = command.start.bind(command)
  command.start = (packet, inside) => {
    const takeReply = start(packet, inside)
    const isWritten = inside.sequenceId !== 0
    tell()
    return isWritten ? takeReply : undefined
  }
}
