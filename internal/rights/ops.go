package rights

import (
	"dos/internal/trust"
	"dos/meta/cache"
	"dos/meta/call"
	"dos/meta/kv"
	"dos/meta/lease"
	"dos/meta/lock"
	"dos/meta/members"
	"dos/meta/named"
	"dos/meta/namespace"
	"dos/meta/queue"
	"dos/meta/session"
	"dos/meta/state"
	"dos/meta/task"
	metatrust "dos/meta/trust"
	"dos/meta/txn"
)

// ops are the rights that each operation needs. One that is not here nobody may
// ask for.
var ops = map[state.Op]trust.Rights{
	// End is for the session's owner, or who may administer; see Meta.
	session.OpOpen:     trust.ReadOnly,
	session.OpEnd:      trust.ReadOnly,
	session.OpReserve:  trust.ReadWrite,
	session.OpAdvance:  trust.ReadOnly,
	session.OpSession:  trust.ReadOnly,
	session.OpSessions: trust.ReadOnly,
	session.OpSettled:  trust.ReadOnly,
	session.OpRenew:    trust.ReadOnly,

	namespace.OpInit:        trust.Member,
	namespace.OpCreate:      trust.ReadWrite,
	namespace.OpLink:        trust.ReadWrite,
	namespace.OpUnlink:      trust.ReadWrite,
	namespace.OpRmdir:       trust.ReadWrite,
	namespace.OpRename:      trust.ReadWrite,
	namespace.OpDrop:        trust.ReadOnly, // what the session kept
	namespace.OpSetAttr:     trust.ReadWrite,
	namespace.OpWrite:       trust.ReadWrite,
	namespace.OpSwap:        trust.Member,
	namespace.OpSetXattr:    trust.ReadWrite,
	namespace.OpRemoveXattr: trust.ReadWrite,
	namespace.OpPurge:       trust.Member,
	namespace.OpMove:        trust.Member,
	namespace.OpBury:        trust.Member,
	namespace.OpLookup:      trust.ReadOnly,
	namespace.OpAttr:        trust.ReadOnly,
	namespace.OpEntries:     trust.ReadOnly,
	namespace.OpParent:      trust.ReadOnly,
	namespace.OpReadlink:    trust.ReadOnly,
	namespace.OpLayout:      trust.ReadOnly,
	namespace.OpXattr:       trust.ReadOnly,
	namespace.OpXattrs:      trust.ReadOnly,
	namespace.OpUsage:       trust.ReadOnly,
	namespace.OpStripes:     trust.ReadOnly,
	namespace.OpStripe:      trust.ReadOnly,
	namespace.OpDead:        trust.ReadOnly,
	namespace.OpUnnamed:     trust.ReadOnly,
	namespace.OpFolds:       trust.ReadOnly,
	namespace.OpPurging:     trust.ReadOnly,
	namespace.OpCheck:       trust.Admin, // it takes long
	namespace.OpStored:      trust.ReadOnly,
	namespace.OpAsked:       trust.ReadOnly,

	members.OpInit:        trust.Member,
	members.OpPutNode:     trust.Member, // each itself; see Meta
	members.OpRemoveNode:  trust.Admin,
	members.OpPutStore:    trust.Member,
	members.OpRemoveStore: trust.Admin,
	members.OpSetGroups:   trust.Admin,
	members.OpDrain:       trust.Admin,
	members.OpSetOut:      trust.Admin,
	members.OpSetNode:     trust.Admin,
	members.OpConfigure:   trust.Admin,
	members.OpMap:         trust.ReadOnly,
	members.OpEpoch:       trust.ReadOnly,

	// Certificates come from an Office (package admission), whose machine may ask
	// another for these commands.
	metatrust.OpSetAuthorities: never,
	metatrust.OpPutToken:       trust.Admin,
	metatrust.OpDeleteToken:    trust.Admin,
	metatrust.OpJoin:           trust.Member,
	metatrust.OpRenew:          trust.Member,
	metatrust.OpConfirm:        trust.Member,
	metatrust.OpRevoke:         trust.Admin,
	metatrust.OpPrune:          trust.Admin,
	metatrust.OpAuthorities:    trust.ReadOnly,
	metatrust.OpSigner:         never,
	metatrust.OpTokens:         trust.Admin,
	metatrust.OpToken:          trust.Admin,
	metatrust.OpIdentities:     trust.Admin,

	lease.OpTake:    trust.ReadWrite,
	lease.OpGive:    trust.ReadOnly,
	lease.OpHolder:  trust.ReadOnly,
	lease.OpHolding: trust.ReadOnly,
	lease.OpWanted:  trust.ReadOnly,

	lock.OpSet:    trust.ReadOnly,
	lock.OpCancel: trust.ReadOnly,
	lock.OpDrop:   trust.ReadOnly,
	lock.OpTest:   trust.ReadOnly,
	lock.OpAwait:  trust.ReadOnly,

	named.OpAsk:     trust.ReadWrite,
	named.OpRelease: trust.ReadWrite,
	named.OpReturn:  trust.ReadWrite,
	named.OpByID:    trust.ReadWrite,
	named.OpSet:     trust.ReadWrite,
	named.OpBreak:   trust.Admin,
	named.OpRecall:  trust.ReadOnly, // whoever looks must see
	named.OpWatch:   trust.ReadOnly,
	named.OpMkdir:   trust.ReadWrite,
	named.OpRmdir:   trust.ReadWrite,
	named.OpRemove:  trust.ReadWrite,
	named.OpExpire:  trust.Member,
	named.OpStatus:  trust.ReadOnly,
	named.OpList:    trust.ReadOnly,
	named.OpAwait:   trust.ReadOnly,
	named.OpFollow:  trust.ReadOnly,
	named.OpDue:     trust.ReadOnly,

	kv.OpMake:     trust.ReadWrite,
	kv.OpDrop:     trust.ReadWrite,
	kv.OpSetTable: trust.ReadWrite,
	kv.OpPut:      trust.ReadWrite,
	kv.OpDelete:   trust.ReadWrite,
	kv.OpSet:      trust.ReadWrite,
	kv.OpRename:   trust.ReadWrite,
	kv.OpStage:    trust.ReadWrite,
	kv.OpUnstage:  trust.ReadWrite,
	kv.OpExpire:   trust.Member,
	kv.OpUpdate:   trust.ReadWrite,
	kv.OpTables:   trust.ReadOnly,
	kv.OpTable:    trust.ReadOnly,
	kv.OpGet:      trust.ReadOnly,
	kv.OpPart:     trust.ReadOnly,
	kv.OpScan:     trust.ReadOnly,
	kv.OpList:     trust.ReadOnly,
	kv.OpFollow:   trust.ReadOnly,
	kv.OpDue:      trust.ReadOnly,
	kv.OpGets:     trust.ReadOnly,
	txn.OpCommit:  trust.ReadWrite,

	queue.OpMake:        trust.ReadWrite,
	queue.OpRemove:      trust.ReadWrite,
	queue.OpSet:         trust.ReadWrite,
	queue.OpPush:        trust.ReadWrite,
	queue.OpTake:        trust.ReadWrite,
	queue.OpPass:        trust.ReadWrite,
	queue.OpSettle:      trust.ReadWrite,
	queue.OpLeave:       trust.ReadWrite,
	queue.OpMakeGroup:   trust.ReadWrite,
	queue.OpRemoveGroup: trust.ReadWrite,
	queue.OpSeek:        trust.ReadWrite,
	queue.OpPurge:       trust.ReadWrite,
	queue.OpTick:        trust.Member,
	queue.OpSweep:       trust.Member,
	queue.OpBury:        trust.ReadWrite,
	queue.OpServe:       trust.Member, // each machine itself; see Meta
	queue.OpMove:        trust.Member,
	queue.OpList:        trust.ReadOnly,
	queue.OpStatus:      trust.ReadOnly,
	queue.OpAwait:       trust.ReadOnly,
	queue.OpRoom:        trust.ReadOnly,
	queue.OpRead:        trust.ReadOnly,
	queue.OpFlights:     trust.ReadOnly,
	queue.OpDead:        trust.ReadOnly,
	queue.OpDue:         trust.ReadOnly,
	queue.OpWhose:       trust.ReadOnly,
	queue.OpHomes:       trust.ReadOnly,

	cache.OpMake:     trust.ReadWrite,
	cache.OpRemove:   trust.ReadWrite,
	cache.OpSet:      trust.ReadWrite,
	cache.OpMkdir:    trust.ReadWrite,
	cache.OpRmdir:    trust.ReadWrite,
	cache.OpServe:    trust.Member, // each machine itself; see Meta
	cache.OpKnow:     trust.Member,
	cache.OpWeigh:    trust.Member,
	cache.OpDistrust: trust.Member,
	cache.OpFollow:   trust.ReadOnly,
	cache.OpBucket:   trust.ReadOnly,
	cache.OpIsDir:    trust.ReadOnly,
	cache.OpDirs:     trust.ReadOnly,

	// Machines alone run tasks. Whose a task is, is said by who submits it, as with
	// files; see Meta for root's.
	task.OpSubmit:      trust.ReadWrite,
	task.OpControl:     trust.ReadWrite,
	task.OpForget:      trust.ReadWrite,
	task.OpOffer:       trust.Member,
	task.OpWithdraw:    trust.Member,
	task.OpReport:      trust.Member,
	task.OpSchedule:    trust.Member,
	task.OpMakeQueue:   trust.Admin,
	task.OpSetQueue:    trust.Admin,
	task.OpRemoveQueue: trust.Admin,
	task.OpCleared:     trust.Member,
	task.OpGet:         trust.ReadOnly,
	task.OpAwait:       trust.ReadOnly,
	task.OpSpec:        trust.ReadOnly,
	task.OpList:        trust.ReadOnly,
	task.OpEvents:      trust.ReadOnly,
	task.OpStatus:      trust.ReadOnly,
	task.OpOrders:      trust.Member,
	task.OpQueue:       trust.ReadOnly,
	task.OpQueues:      trust.ReadOnly,
	task.OpDue:         trust.ReadOnly,
	task.OpForgotten:   trust.ReadOnly,
	task.OpOffers:      trust.ReadOnly,

	call.OpMake:   trust.ReadWrite,
	call.OpRemove: trust.ReadWrite,
	call.OpSet:    trust.ReadWrite,
	call.OpJoin:   trust.ReadWrite,
	call.OpLeave:  trust.ReadWrite,
	call.OpList:   trust.ReadOnly,
	call.OpStatus: trust.ReadOnly,
}
