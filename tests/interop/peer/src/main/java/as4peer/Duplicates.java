package as4peer;

import java.util.Collection;

import com.helger.base.state.EContinue;
import com.helger.phase4.duplicate.AS4DuplicateManagerInMemory;
import com.helger.phase4.duplicate.IAS4DuplicateManager;
import com.helger.phase4.mgr.AS4ManagerFactoryInMemory;

/**
 * phase4's duplicate elimination, which answers a message that came before with EBMS:0004; and, at sites that repeat
 * receipts, none, so that the application (Inbox) eliminates duplicates and phase4 writes a receipt for each copy.
 */
final class Duplicates extends AS4DuplicateManagerInMemory {
  private final Collection<Site> sites;

  private Duplicates(Collection<Site> sites) {
    this.sites = sites;
  }

  static AS4ManagerFactoryInMemory factory(Collection<Site> sites) {
    return new AS4ManagerFactoryInMemory() {
      @Override
      public IAS4DuplicateManager createDuplicateManager() {
        return new Duplicates(sites);
      }
    };
  }

  @Override
  public EContinue registerAndCheck(String messageId, String profileId, String pmodeId) {
    for (Site site : sites)
      if (site.answers.repeatReceipts() && site.incoming().getID().equals(pmodeId))
        return EContinue.CONTINUE;
    return super.registerAndCheck(messageId, profileId, pmodeId);
  }
}
